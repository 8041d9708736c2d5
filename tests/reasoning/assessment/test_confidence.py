"""Confidence and choice: figures by hand, exact shares, ties broken by hash, rejections never undone."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllmrec.reasoning.assessment.verdicts import (
    LESS_TRUSTED,
    KeepRule,
    Parts,
    confidence,
    decide,
    prediction,
    spread_of,
)

WHOLE = Parts(1.0, 2.0, None, None, 1.0, 1.0, None)


def choice(keep: float = 0.5, threshold: float | None = None, seed: int = 42) -> KeepRule:
    return KeepRule(keep, threshold, seed)


def test_the_mean_is_geometric_and_weighted() -> None:
    parts = Parts(0.81, 0.0, 0.4, 0.1, 0.5, 0.9, None, prediction=0.6)
    assert confidence(parts) == pytest.approx((0.81**2 * 0.6**2 * 0.5 * 0.9) ** (1 / 6), abs=1e-6)
    assert confidence(parts._replace(prediction=None)) == pytest.approx((0.81**2 * 0.5 * 0.9) ** (1 / 4), abs=1e-6)
    assert confidence(parts._replace(prediction=None, steps=None)) == pytest.approx(
        (0.81**2 * 0.9) ** (1 / 3), abs=1e-6
    )
    assert confidence(WHOLE) == 1.0
    assert confidence(WHOLE._replace(modality=0.0)) == 0.0


def test_a_lift_becomes_a_probability_by_its_spread_and_error() -> None:
    assert spread_of([3.0, -4.0]) == pytest.approx(math.sqrt(12.5))
    assert spread_of([]) == 0.0
    lifted = WHOLE._replace(lift=1.2, lift_error=0.5)
    assert prediction(lifted, 1.2) == pytest.approx(1 / (1 + math.exp(-1.2 / 1.3)), abs=1e-6)
    assert prediction(lifted._replace(lift_error=None), 1.2) == pytest.approx(1 / (1 + math.exp(-1)), abs=1e-6)
    assert prediction(WHOLE, 1.2) is None
    assert prediction(lifted._replace(lift=0.0), 1.0) == 0.5
    assert prediction(lifted._replace(lift=0.0, lift_error=0.0), 0.0) == 0.5
    assert prediction(lifted._replace(lift=-5000.0), 1.0) == 0.0


def test_a_better_lift_is_never_trusted_less() -> None:
    assessed = {str(lift): WHOLE._replace(lift=float(lift), lift_error=0.2) for lift in range(-3, 4)}
    verdicts = decide(assessed, choice(keep=3 / 7))
    order = sorted(verdicts, key=lambda key: verdicts[key].confidence)
    assert order == ["-3", "-2", "-1", "0", "1", "2", "3"]
    assert {key for key, verdict in verdicts.items() if verdict.keep} == {"1", "2", "3"}
    assert verdicts["0"] == (0.5, round(0.25 ** (1 / 6), 6), False, LESS_TRUSTED)


def test_the_share_is_one_of_what_is_not_rejected() -> None:
    assessed = {str(number): WHOLE._replace(modality=number / 20) for number in range(1, 21)}
    assessed |= {f"leak {number}": WHOLE._replace(reason="leaks") for number in range(30)}
    verdicts = decide(assessed, choice(keep=0.25))
    assert {key for key, verdict in verdicts.items() if verdict.keep} == {"16", "17", "18", "19", "20"}
    assert {verdicts[f"leak {number}"] for number in range(30)} == {(None, 0.0, False, "leaks")}
    assert verdicts["15"].reason == LESS_TRUSTED
    assert verdicts["16"].reason is None


def test_a_threshold_keeps_all_that_reach_it() -> None:
    assessed = {str(number): WHOLE._replace(modality=number / 20) for number in range(1, 21)}
    at_least = confidence(assessed["10"])
    verdicts = decide(assessed, choice(threshold=at_least))
    assert [key for key, verdict in verdicts.items() if verdict.keep] == [str(number) for number in range(10, 21)]
    assert not any(
        verdict.keep for verdict in decide({"1": WHOLE._replace(reason="leaks")}, choice(threshold=0)).values()
    )


def test_ties_go_by_margin_and_then_by_hash() -> None:
    assessed = {str(number): WHOLE for number in range(100)} | {"far": WHOLE._replace(modality_margin=9.0)}
    one, same, other = (decide(assessed, choice(keep=0.1, seed=seed)) for seed in (1, 1, 2))
    kept = [{key for key, verdict in verdicts.items() if verdict.keep} for verdicts in (one, same, other)]
    assert kept[0] == kept[1] != kept[2]
    assert "far" in kept[0] & kept[2]
    assert kept[0] != {"far", *map(str, range(9))}


@given(st.integers(0, 40), st.floats(0, 1))
def test_the_number_kept_is_exact(count: int, keep: float) -> None:
    verdicts = decide({str(number): WHOLE for number in range(count)}, choice(keep=keep))
    assert sum(verdict.keep for verdict in verdicts.values()) == round(keep * count)


def test_lifts_of_rejected_traces_set_no_scale() -> None:
    """A trace that leaks has a huge lift, which would make all others look like nothing."""
    honest = {str(lift): WHOLE._replace(lift=float(lift)) for lift in (-1, 1)}
    alone = decide(honest, choice())
    beside = decide(honest | {"leak": WHOLE._replace(lift=50.0, reason="leaks")}, choice())
    assert {key: beside[key] for key in honest} == alone
