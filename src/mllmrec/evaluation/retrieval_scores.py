"""What a recommender makes of the whole catalogue, user after user: the one way by which retrieval asks a baseline."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from mllmrec.artifacts import Workspace
from mllmrec.data.sequences import Interactions
from mllmrec.errors import SettingsError
from mllmrec.evaluation.baselines.base import Baseline, Floats, batches, with_full_history
from mllmrec.evaluation.baselines.families import FAMILIES, INSTALL, Fitting
from mllmrec.evaluation.baselines.fitted import lines_for, open_baseline
from mllmrec.records import RankingExample
from mllmrec.settings.candidates import RETRIEVERS, RetrieveSettings

USERS_AT_A_TIME = 128


def catalogue_scores(
    settings: RetrieveSettings,
    workspace: Workspace,
    interactions: Interactions,
    examples: Sequence[RankingExample],
    items: Sequence[str],
) -> tuple[Iterator[Floats], dict[str, Any]]:
    """One array over `items` for each example, in their order, and how the retriever came about.

    It is fitted, tuned and cached as `mllmrec baselines` does it, and reads each user's whole line before the target.
    """
    _check_installed(settings.retriever)
    fitting = Fitting(
        workspace=workspace,
        dataset=settings.dataset,
        interactions=interactions,
        window=settings.min_inter,
        seed=settings.seed,
    )
    fitted = open_baseline(settings.retriever, fitting, settings.split)
    details = {"history": "full", "fit_lines": len(lines_for(fitting, settings.split))}
    tuning = {"tuning": asdict(fitted.tuning)} if fitted.tuning else {}
    full = with_full_history(examples, interactions.lines(settings.split))
    return scored(fitted.baseline, full, items), details | tuning


def _check_installed(name: str) -> None:
    if FAMILIES[name].rectools and importlib.util.find_spec("rectools") is None:
        others = [each for each in RETRIEVERS if each in FAMILIES and not FAMILIES[each].rectools]
        raise SettingsError(
            f"The retriever {name} needs RecTools, which isn't installed. Install it: {INSTALL}; or take one that does "
            f"without: --retriever {' or '.join(others)}."
        )


def scored(baseline: Baseline, examples: Sequence[RankingExample], items: Sequence[str]) -> Iterator[Floats]:
    """The scores of `items` for each example, of few users at a time."""
    for batch in batches(examples, USERS_AT_A_TIME):
        yield from baseline.score_items(batch, items)
