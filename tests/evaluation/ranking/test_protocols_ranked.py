"""A model on a retriever's lists: what it can't find counts zero, when ranked, verified and probed alike."""

from __future__ import annotations

from typing import Any

import pytest
from small_models import DATASET, WINDOW

from mllmrec.data.candidates.drawing import read_candidates
from mllmrec.data.candidates.stage import run as freeze_candidates
from mllmrec.errors import SettingsError
from mllmrec.evaluation.comparison.stage import compare
from mllmrec.evaluation.probing import stage
from mllmrec.evaluation.ranking import stage as ranking
from mllmrec.evaluation.ranking.runs import Run, read_run
from mllmrec.evaluation.retrieval import stage as retrieval
from mllmrec.evaluation.verifying import stage as verification
from mllmrec.settings.data import CandidatesSettings, RetrieveSettings
from mllmrec.settings.evaluation import EvaluateSettings, ProbeSettings, VerifySettings
from mllmrec.storage.workspace import Workspace, read_json

RERANK = {"negatives": "rerank", "num_neg": 8, "retriever": "popularity", "backbone": "tiny", "min_inter": WINDOW}
STEM = f"test_rr8-popularity_w{WINDOW}_s42"


@pytest.fixture
def shop(toy_copy: Workspace) -> Workspace:
    """The toy with the eight most popular unknown items for each user."""
    settings = RetrieveSettings(
        dataset=DATASET, root=str(toy_copy.root), retriever="popularity", rerank=True, num=8, min_inter=WINDOW
    )
    retrieval.run(settings, toy_copy)
    return toy_copy


def evaluate(shop: Workspace, **knobs: Any) -> Run:
    settings = EvaluateSettings.model_validate(
        {"dataset": DATASET, "root": str(shop.root), "device": "cpu", "top_k": "1,3", **RERANK, **knobs}
    )
    summary = ranking.run(settings, shop)
    assert summary.artifact is not None
    return read_run(summary.artifact)


def verified(run: Run) -> bool:
    return verification.run(VerifySettings(runs=(str(run.folder),)), Workspace(".")).passed


def test_what_a_retriever_missed_a_model_can_not_find(shop: Workspace) -> None:
    examples = read_candidates(shop.dataset(DATASET).candidates("test", "rr8-popularity", WINDOW, 42))
    found = [example.target_id in example.candidates for example in examples]
    assert 0 < sum(found) < len(found)
    run = evaluate(shop)
    assert run.facts["protocol"] == "rr8-popularity"
    assert run.facts["num_listed"] == sum(found)
    ceiling = sum(found) / len(found)
    assert all(bounds["value"] <= ceiling for bounds in run.facts["metrics"].values())
    assert run.facts["chance"]["HR@3"] == pytest.approx(ceiling * 3 / 8)
    assert [ranking.rank is not None for ranking in run.rankings()] == found
    assert verified(run)


def test_a_slice_of_a_model_and_its_generated_answers_verify(shop: Workspace) -> None:
    scored = evaluate(shop, limit=9)
    generated = evaluate(shop, limit=9, method="generate", max_answer_tokens=8)
    assert scored.folder.name == f"{STEM}_limit9"
    assert [each.example_id for each in scored.rankings()] == [each.example_id for each in generated.rankings()]
    assert verified(scored)
    assert verified(generated)
    assert len(compare([scored, generated])[0]) == len(scored.facts["metrics"])


def test_probes_ask_about_lists_without_a_target(shop: Workspace) -> None:
    knobs = {"dataset": DATASET, "root": str(shop.root), "device": "cpu", "limit": 9, "rotations": 3, **RERANK}
    probes = ("position", "popularity", "length", "shuffled", "no-history")
    stage.run(ProbeSettings.model_validate(knobs | {"probes": probes}), shop)
    facts = read_json(shop.dataset(DATASET).run("tiny", STEM) / "probes.json")
    plain = evaluate(shop, limit=9, top_k="3,5,10")
    told = {name: bounds["value"] for name, bounds in plain.facts["metrics"].items()}
    assert {name: bounds["value"] for name, bounds in facts["metrics"].items()} == pytest.approx(told)
    assert set(facts["probes"]) >= set(probes)


def test_the_whole_catalogue_is_nothing_for_a_model(shop: Workspace) -> None:
    freeze_candidates(CandidatesSettings(dataset=DATASET, root=str(shop.root), min_inter=WINDOW, negatives="all"), shop)
    with pytest.raises(SettingsError, match="spells out no lists: it asks about the whole catalogue"):
        evaluate(shop, negatives="all")
    knobs = {"dataset": DATASET, "root": str(shop.root), "device": "cpu", **RERANK, "negatives": "all"}
    probes = ProbeSettings.model_validate(knobs)
    with pytest.raises(SettingsError, match="spells out no lists"):
        stage.run(probes, shop)
