"""The monitor of reward inflation: the arithmetic of its slopes, planted rewards, and the timeline of a real run."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from small_models import DATASET, grpo_settings, shorten_validation
from transformers import TrainerControl, TrainerState

from mllmrec.data.draws import generator
from mllmrec.data.prompts import parse
from mllmrec.errors import SettingsError
from mllmrec.evaluation.metrics import per_user
from mllmrec.evaluation.ranking.rankings import position_of, ranking_of
from mllmrec.records import RankingExample
from mllmrec.settings.training import GrpoSettings
from mllmrec.storage.manifests import Manifest
from mllmrec.storage.workspace import Workspace, read_jsonl
from mllmrec.training.callbacks import METRICS, LogCallback, append_log, averaged
from mllmrec.training.grpo import stage as grpo
from mllmrec.training.grpo.monitor import MonitorCallback, fit, fit_users, judge, training_row, unrewarding
from mllmrec.training.grpo.rewards import Reward, shares, strict

WINDOW = 6


NUM_USERS = 40


def rows_of(reward: Sequence[float], every: int = 10) -> list[dict[str, Any]]:
    """A timeline with these rewards at steps `every`, 2 x `every`, ..."""
    return [{"step": every * number, "reward": paid} for number, paid in enumerate(reward, 1)]


def users_of(hits: Sequence[int], every: int = 10) -> dict[int, list[float]]:
    """Forty users, of whom the first `hits` are ranked right and the others wrong, at the same steps."""
    return {every * number: [1.0] * hit + [0.0] * (NUM_USERS - hit) for number, hit in enumerate(hits, 1)}


def test_a_slope_worked_out_by_hand() -> None:
    """x = 0, 1, 2, 3 and y = 0, 1, 0, 1: Sxx = 5, sum (x - 1.5) y = 1, so b = .2. The residuals are -.2, .6, -.6, .2,
    s^2 = .8 / 2, and t(.975, 2) = 4.3027: the interval is .2 +- 4.3027 x sqrt(.4 / 5)."""
    slope = fit([0, 1, 2, 3], [0, 1, 0, 1])
    assert (slope.value, slope.span) == (0.2, 3)
    assert (slope.low, slope.high) == pytest.approx((0.2 - 1.21698, 0.2 + 1.21698), abs=1e-5)
    assert not slope.rises


def test_slopes_agree_with_another_implementation() -> None:
    rng = np.random.default_rng(3)
    for num in (4, 7, 12):
        steps, values = np.cumsum(rng.integers(1, 9, num)).tolist(), rng.normal(size=num).tolist()
        theirs, slope = stats.linregress(steps, values), fit(steps, values)
        reach = stats.t.ppf(0.975, num - 2) * theirs.stderr
        assert (slope.value, slope.low, slope.high) == pytest.approx(
            (theirs.slope, theirs.slope - reach, theirs.slope + reach), abs=1e-9
        )


def test_ninety_five_intervals_of_a_hundred_hold_the_true_slope() -> None:
    """4,000 noisy lines of slope .3 over eight readings; the standard error of the share is .0034."""
    rng, steps = np.random.default_rng(0), list(range(8))
    slopes = [fit(steps, (0.3 * np.arange(8) + rng.normal(size=8)).tolist()) for _ in range(4000)]
    held = np.mean([slope.low <= 0.3 <= slope.high for slope in slopes])
    assert held == pytest.approx(0.95, abs=0.014)


@pytest.mark.parametrize("value", [0.0, 0.3, 0.1 + 0.2, 1 / 3, -1.5])
def test_a_flat_series_doesn_t_rise_by_a_rounding_error(value: float) -> None:
    slope = fit([3, 6, 9, 12, 15, 18, 21, 24], [value] * 8)
    assert (slope.value, slope.low, slope.high, slope.rises) == (0, 0, 0, False)


def test_a_slope_over_users_worked_out_by_hand() -> None:
    """Over x = 0, 10 the users gain .05, 0, .05 and 0 a step: the mean is .025 and the standard deviation .0288675,
    and t(.975, 3) = 3.18245: the interval is .025 +- 3.18245 x .0288675 / 2."""
    slope = fit_users([0, 10], [[0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]])
    assert (slope.value, slope.span) == (0.025, 10)
    assert (slope.low, slope.high) == pytest.approx((0.025 - 0.0459347, 0.025 + 0.0459347), abs=1e-6)


def test_both_slopes_of_a_mean_are_the_same_line() -> None:
    """The users' slopes average to the slope of their mean; a single user shows no rise."""
    steps, values = [1, 4, 5, 9, 12], np.random.default_rng(5).random((5, 30))
    assert fit_users(steps, values.tolist()).value == pytest.approx(fit(steps, values.mean(axis=1).tolist()).value)
    assert not fit_users([0, 1, 2, 3], [[0.0], [1.0], [1.0], [1.0]]).rises


@pytest.mark.parametrize(
    ("reward", "hits", "inflated"),
    [
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [20, 20, 20, 20, 20, 20], True),
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [30, 28, 26, 24, 22, 20], True),
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [20, 20, 21, 21, 21, 22], True),
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [20, 22, 24, 26, 28, 30], False),
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [10, 25, 29, 30, 30, 30], False),
        ([0.1, 0.6, 0.2, 0.5, 0.1, 0.6], [20, 20, 20, 20, 20, 20], False),
        ([0.6, 0.5, 0.4, 0.3, 0.2, 0.1], [30, 28, 26, 24, 22, 20], False),
        ([0.3] * 6, [20] * 6, False),
    ],
    ids=["flat", "falling", "two users of forty", "rising", "levelling off", "noisy reward", "both fall", "both flat"],
)
def test_the_alarm_compares_two_slopes(reward: list[float], hits: list[int], inflated: bool) -> None:
    verdict = judge(rows_of(reward), users_of(hits), WINDOW)
    assert verdict is not None
    assert verdict.inflated is inflated


def test_only_the_window_counts_and_it_has_to_be_full() -> None:
    """What rose long ago and is flat now raises nothing; the row of step 0 has no reward and isn't counted."""
    start, users = {"step": 0}, {0: [0.5] * NUM_USERS, **users_of([20] * 10)}
    assert judge([start, *rows_of([0.1, 0.2, 0.3, 0.4, 0.5])], users, WINDOW) is None
    verdict = judge([start, *rows_of([0.1, 0.2, 0.3, 0.4] + [0.5] * 6)], users, WINDOW)
    assert verdict is not None
    assert (verdict.first, verdict.last, verdict.inflated) == (50, 100, False)


def test_a_verdict_tells_changes_along_the_lines() -> None:
    """A straight rise from .1 to .6 is one of +.5, whatever the steps."""
    told = str(judge(rows_of([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]), users_of([20] * 6), WINDOW))
    assert "from step 10 to 60 the training reward rose by +0.500 [+0.500, +0.500]" in told
    assert "validation NDCG@3 changed by +0.000 [+0.000, +0.000]" in told


def test_training_figures_are_means_over_steps() -> None:
    """Three steps at 1 and one at 5 are 2 a step; a figure the trainer couldn't tell is left out of its mean."""
    logs = [
        (13, {"reward": 1.0, "kl": None, "chosen/10": 0.1, "chosen/2": 0.2, "step_time": 9.0}),
        (14, {"reward": 5.0, "kl": 0.25, "chosen/10": 0.5, "chosen/2": 0.0, "step_time": 9.0}),
    ]
    assert training_row(logs, since=10) == {
        "since": 10,
        "reward": 2.0,
        "kl": 0.25,
        "chosen_positions": pytest.approx([0.15, 0.2]),
    }


def world(num: int) -> list[RankingExample]:
    """Questions of five candidates with the target at any place."""
    examples = []
    for number in range(num):
        draw = generator(1, "world", str(number))
        items = tuple(draw.sample([str(item) for item in range(50)], 5))
        target = draw.choice(items)
        examples.append(
            RankingExample(
                example_id=str(number), user_id="u", history=(), candidates=items, target_id=target, split="train"
            )
        )
    return examples


def format_only(completion: str, example: RankingExample) -> float:
    """The planted reward: one for an answer in the right form, whichever item it names."""
    answer = parse(completion)
    return float(answer.lines == 1 and answer.item_id is not None)


def ease(example: RankingExample) -> np.ndarray:
    """What makes one candidate easier to choose than another."""
    return np.array([generator(2, "ease", example.example_id + item).gauss(0, 1) for item in example.candidates])


WORLD = [(example, ease(example)) for example in world(200)]


class ToyPolicy:
    """A policy of two numbers, trained by its rewards: how well it knows the target, and how often it babbles.

    It answers with a candidate drawn from softmax(ease + skill at the target), or with no answer at all with
    probability sigmoid(babble). The gradient is that of the group's advantages, as in GRPO.
    """

    def __init__(self, seed: int) -> None:
        self.skill, self.babble = 0.5, 0.5
        self.rng = np.random.default_rng(seed)

    def scores(self, example: RankingExample, ease_C: np.ndarray) -> np.ndarray:
        return ease_C + self.skill * np.array([item == example.target_id for item in example.candidates])

    def step(self, reward: Reward) -> dict[str, float]:
        """Eight answers to each of eight questions, and a step for each group."""
        asked: list[RankingExample] = []
        texts: list[str] = []
        paid: list[float] = []
        for place in self.rng.integers(0, len(WORLD), 8):
            example, ease_C = WORLD[place]
            odds = np.exp(self.scores(example, ease_C))
            chances, target = odds / odds.sum(), example.candidates.index(example.target_id)
            mute = 1 / (1 + np.exp(-self.babble))
            silent, chosen = self.rng.random(8) < mute, self.rng.choice(5, 8, p=chances)
            group = [
                "well ..." if quiet else f"[ITEM_{example.candidates[pick]}] x"
                for quiet, pick in zip(silent, chosen, strict=True)
            ]
            rewards = np.array([reward(text, example) for text in group])
            advantages = (rewards - rewards.mean()) / (rewards.std(ddof=1) + 1e-4)
            self.babble += 0.01 * float(advantages @ (silent - mute))
            self.skill += 0.002 * float(advantages @ (~silent * ((chosen == target) - chances[target])))
            asked, texts, paid = [*asked, *[example] * 8], [*texts, *group], [*paid, *rewards]
        return {"reward": float(np.mean(paid)), **shares(texts, asked)}


def planted_run(folder: Path, reward: Reward, *, seed: int = 0, steps: int = 48, **knobs: Any) -> MonitorCallback:
    """A run of the toy policy through the callback, validated by exact scores every fourth step."""
    folder.mkdir(parents=True, exist_ok=True)
    policy = ToyPolicy(seed)
    validated: Any = SimpleNamespace(readings={}, by_user={}, select_by="NDCG@3")
    monitor = MonitorCallback(folder, validated, window=WINDOW, **knobs)
    state, control = TrainerState(max_steps=steps), TrainerControl()

    def validate() -> None:
        rankings = [ranking_of(example, policy.scores(example, ease_C).tolist()) for example, ease_C in WORLD]
        values = per_user([position_of(ranking) for ranking in rankings], METRICS)
        validated.readings[state.global_step] = averaged(values)
        validated.by_user[state.global_step] = values[:, METRICS.index("NDCG@3")].tolist()

    validate()
    monitor.on_train_begin(None, state, control)
    while state.global_step < steps and not control.should_training_stop:
        logs = policy.step(reward)
        state.global_step += 1
        if state.global_step % 4 == 0:
            validate()
        monitor.on_step_end(None, state, control)
        monitor.on_log(None, state, control, logs=logs)
    return monitor


@pytest.mark.parametrize("seed", range(5))
def test_a_format_only_reward_raises_the_alarm_and_a_genuine_one_doesn_t(tmp_path: Path, seed: int) -> None:
    """The policy learns to speak up under both; only the strict rule teaches it the target too."""
    inflated = planted_run(tmp_path / "format", format_only, seed=seed)
    genuine = planted_run(tmp_path / "strict", strict, seed=seed)
    assert inflated.alarms
    assert not genuine.alarms
    for run in (inflated, genuine):
        assert run.rows[-1]["reward"] > run.rows[1]["reward"] + 0.2
    assert genuine.rows[-1]["valid_HR@1"] > genuine.rows[0]["valid_HR@1"] + 0.2
    assert "went on" in inflated.warnings()[0]
    assert genuine.warnings() == ()


def test_the_alarm_is_told_once_and_training_goes_on_or_stops(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    warned = planted_run(tmp_path / "warn", format_only)
    told = capsys.readouterr().err
    assert warned.alarms == [24, 28, 32]
    assert told.count("Reward inflation: from step 4 to 24") == told.count("Reward inflation") == 1
    assert "format share +" in told
    assert (warned.rows[-1]["step"], warned.stopped_at) == (48, None)
    stopped = planted_run(tmp_path / "stop", format_only, on_inflation="stop")
    assert stopped.stopped_at == warned.alarms[0] == stopped.rows[-1]["step"] < 48
    assert "Stopping at step" in capsys.readouterr().err
    assert f"training was stopped at step {stopped.stopped_at}" in stopped.warnings()[0]
    assert stopped.details() == {"inflation": {"alarms": [stopped.stopped_at], "stopped_at": stopped.stopped_at}}


def align(workspace: Workspace, **knobs: Any) -> Path:
    """Five real steps, validated after each second one."""
    quick = {"limit": 20, "eval_steps": 2, "inflation_window": 4}
    summary = grpo.run(grpo_settings(workspace, **(quick | knobs)), workspace)
    assert summary.artifact is not None
    return summary.artifact


def timeline_of(folder: Path) -> list[dict[str, Any]]:
    return list(read_jsonl(folder / "metrics.jsonl"))


def test_a_real_run_writes_its_timeline(trained_copy: Workspace) -> None:
    """The trainer logs each third step and validates each second one; with the strict rule the parts add up."""
    folder = align(trained_copy, tag="watched", logging_steps=3)
    rows, log = timeline_of(folder), list(read_jsonl(folder / "training.jsonl"))
    assert [(row["step"], row.get("since")) for row in rows] == [(0, None), (2, 0), (4, 2), (5, 4)]
    valid = {row["step"]: row for row in log if "valid_HR@1" in row}
    for row in rows:
        assert [row[f"valid_{name}"] for name in METRICS] == [valid[row["step"]][f"valid_{name}"] for name in METRICS]
    for row in rows[1:]:
        assert row["reward"] == pytest.approx(row["hit_share"] - 1.5 * row["invalid_share"])
        assert len(row["chosen_positions"]) == 5
        assert sum(row["chosen_positions"]) == pytest.approx(1 - row["invalid_share"])
        assert row["hit_share"] <= 1 - row["invalid_share"] <= row["format_share"] <= 1
        assert {"reward_std", "zero_advantage_share", "kl", "entropy", "completion_tokens"} <= row.keys()
    told = {row["step"]: row["reward"] for row in log if "reward" in row}
    assert set(told) == {2, 3, 4, 5}
    assert rows[2]["reward"] == pytest.approx((told[3] + told[4]) / 2)
    assert not (folder / "validation.jsonl").exists()
    manifest = Manifest.read(folder)
    assert manifest is not None
    assert manifest.details["inflation"] == {"alarms": [], "stopped_at": None}


def test_a_resumed_run_goes_on_with_the_same_timeline(trained_copy: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C during step 3, between two validations and two log lines: no row is doubled, lost or changed."""
    plain = LogCallback.on_step_end

    def on_step_end(self: LogCallback, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        plain(self, args, state, control, **kwargs)
        if state.global_step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    whole = align(trained_copy, tag="whole", logging_steps=5)
    with monkeypatch.context() as patched:
        patched.setattr(LogCallback, "on_step_end", on_step_end)
        with pytest.raises(KeyboardInterrupt, match="stopped at step 3"):
            align(trained_copy, tag="broken", logging_steps=5)
    broken = trained_copy.checkpoint(DATASET, "broken")
    assert [row["step"] for row in timeline_of(broken)] == [0, 2]
    align(trained_copy, tag="broken", logging_steps=5)
    ours, theirs = timeline_of(broken), timeline_of(whole)
    assert [row["step"] for row in ours] == [0, 2, 4, 5]
    for row, expected in zip(ours, theirs, strict=True):
        assert row.pop("chosen_positions", []) == pytest.approx(expected.pop("chosen_positions", []))
        assert row == pytest.approx(expected)


def test_a_real_run_stops_when_it_is_asked_to(trained_copy: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted reward grows with each answer, and a model that hardly moves ranks as before: the first full window
    of four ends training, and the run is finished with the weights of its best validation."""
    paid = iter(range(1_000_000))
    monkeypatch.setitem(grpo.REWARDS, "strict", lambda _completion, _example: float(next(paid)))
    knobs = {"limit": 32, "lr": 1e-9, "eval_steps": 1, "on_inflation": "stop"}
    summary = grpo.run(grpo_settings(trained_copy, tag="stopped", inflation_window=4, **knobs), trained_copy)
    assert (summary.facts["steps"], summary.facts["inflation"]) == (4, {"alarms": [4], "stopped_at": 4})
    assert any("training was stopped at step 4" in warning for warning in summary.warnings)
    folder = trained_copy.checkpoint(DATASET, "stopped")
    assert [row.get("alarm") for row in timeline_of(folder)] == [None, None, None, None, True]
    assert (folder / "adapter_model.safetensors").exists()
    assert Manifest.read(folder) is not None


def test_stopping_needs_validation(trained_copy: Workspace) -> None:
    shorten_validation(trained_copy)
    with pytest.raises(SettingsError, match="no validation line is long enough"):
        align(trained_copy, tag="blind", on_inflation="stop")


@pytest.mark.slow
def test_the_timeline_is_drawn_by_tensorboard(trained_copy: Workspace) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = align(trained_copy, tag="tracked", track=True)
    events = EventAccumulator(str(folder / "runs" / "timeline"))
    events.Reload()
    drawn = {point.step: point.value for point in events.Scalars("timeline/valid_NDCG@3")}
    assert drawn == pytest.approx({row["step"]: row["valid_NDCG@3"] for row in timeline_of(folder)})
    assert {f"timeline_chosen/{place}" for place in range(1, 6)} <= set(events.Tags()["scalars"])


@pytest.mark.slow
def test_a_format_only_reward_in_a_real_run_raises_the_alarm(
    trained_copy: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hot policy often breaks the form and learns to keep it; that teaches it nothing about what comes next.

    How fast depends on the last digits of a processor's sums, so that it is tried up to three times.
    """
    monkeypatch.setitem(grpo.REWARDS, "strict", format_only)
    knobs = {"batch": 128, "num_generations": 8, "max_completion_length": 12, "windows": "all", "overwrite": True}
    pace = {"warmup_share": 0.0, "beta": 0.01, "limit": None, "eval_users": 160, "eval_steps": 3}
    for temperature, lr in ((1.4, 4e-3), (1.4, 3e-3), (1.3, 3e-3)):
        heat = {"temperature": temperature, "lr": lr}
        settings = grpo_settings(trained_copy, tag="form", on_inflation="stop", **knobs, **pace, **heat)
        summary = grpo.run(settings, trained_copy)
        if summary.facts["inflation"]["alarms"]:
            break
    stopped = summary.facts["steps"]
    assert stopped in (18, 21, 24, 27), "the first full window holds six validations, three steps apart"
    assert summary.facts["inflation"] == {"alarms": [stopped], "stopped_at": stopped}
    rows = timeline_of(trained_copy.checkpoint(DATASET, "form"))
    assert rows[-1]["format_share"] > rows[1]["format_share"] + 0.04
    assert abs(rows[-1]["hit_share"] - rows[1]["hit_share"]) < 0.05


@pytest.mark.parametrize(
    ("rollouts", "invalid", "equal", "told"),
    [
        ("generate", [1.0, 0.9], [0.5, 0.5], "95% name no candidate, and in 50% of the groups"),
        ("generate", [0.2, 0.2], [1.0, 0.9], "20% name no candidate, and in 95% of the groups"),
        ("candidates", [0.0, 0.0], [1.0, 1.0], "--rollouts exact"),
        ("generate", [0.9, 0.8], [0.8, 0.9], ""),
        ("exact", [1.0, 1.0], [1.0, 1.0], ""),
    ],
)
def test_samples_that_taught_nothing_are_told_with_the_rollouts_that_sample_nothing(
    rollouts: Any, invalid: list[float], equal: list[float], told: str, tmp_path: Path
) -> None:
    log = tmp_path / "training.jsonl"
    settings = GrpoSettings(dataset=DATASET, sft_tag="full", rollouts=rollouts)
    assert unrewarding(settings, log) == ""
    for step, (silent, same) in enumerate(zip(invalid, equal, strict=True), 1):
        append_log(tmp_path, step, {"invalid_share": silent, "frac_reward_zero_std": same})
        append_log(tmp_path, step, {"valid_NDCG@3": 0.5})
    message = unrewarding(settings, log)
    assert told in message
    assert ("with --rollouts exact" in message) == bool(told) == bool(message)
