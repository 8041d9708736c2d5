"""What changes when one thing about the prompt does: the same users asked twice, and their paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mllmrec.evaluation.metrics import FloatArray
from mllmrec.evaluation.probing.sample import Sample, intervals, kept
from mllmrec.evaluation.statistics import minimum_detectable


def probe(sample: Sample, conditions: Sequence[str], plain: str = "plain") -> dict[str, dict[str, Any]]:
    """For each condition: every metric without and with the change, the difference, and what could have been found."""
    if not conditions:
        return {}
    before, chosen = sample.values(plain), sample.first_choices(plain)
    columns: dict[str, FloatArray] = {f"{plain} {name}": before[:, i] for i, name in enumerate(sample.names)}
    detectable: dict[str, list[float]] = {}
    for condition in conditions:
        after = sample.values(condition)
        detectable[condition] = minimum_detectable(after - before)
        for index, name in enumerate(sample.names):
            columns[f"{condition} {name}"] = after[:, index]
            columns[f"{condition} {name} difference"] = (after - before)[:, index]
        columns[f"{condition} kept"] = kept(chosen, sample.first_choices(condition))
    told = intervals(columns, sample.seed)
    return {
        condition: {
            "metrics": {
                name: {
                    "plain": told[f"{plain} {name}"],
                    "changed": told[f"{condition} {name}"],
                    "difference": told[f"{condition} {name} difference"],
                    "minimum_detectable": least if np.isfinite(least) else None,
                }
                for name, least in zip(sample.names, detectable[condition], strict=True)
            },
            "first_choice_kept": told[f"{condition} kept"],
        }
        for condition in conditions
    }
