"""A recommender of the trained toy model, and its frozen test lists. To be read only."""

from __future__ import annotations

import pytest
from small_models import DATASET, WINDOW

from mllmrec import Recommender
from mllmrec.data.candidates.drawing import read_candidates
from mllmrec.records import RankingExample
from mllmrec.storage.workspace import Workspace


@pytest.fixture(scope="session")
def recommender(trained: Workspace) -> Recommender:
    return Recommender.load(trained.root, DATASET, "grpo", device="cpu", retriever="markov")


@pytest.fixture(scope="session")
def examples(trained: Workspace) -> list[RankingExample]:
    return read_candidates(trained.dataset(DATASET).candidates("test", "uni9", WINDOW, 42))
