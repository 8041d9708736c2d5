"""What happens beside the training steps: validation, the log, a polite stop."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from transformers import TrainerCallback

from mllmrec.evaluation.metrics import FloatArray, means, per_user
from mllmrec.evaluation.ranking.rankings import position_of, ranking_of
from mllmrec.models.adapters import folded_meanwhile
from mllmrec.models.base import ScoringTask
from mllmrec.models.ranker import scorer_of
from mllmrec.models.scoring import evaluating
from mllmrec.progress import note, progress
from mllmrec.records import RankingExample
from mllmrec.settings.training import LOSS
from mllmrec.storage.workspace import read_jsonl
from mllmrec.training.checkpoints import BEST, DRAFT, LOG, VALIDATED
from mllmrec.training.grpo.candidate_policy import distribution

SAVE_SECONDS = 600.0
"""Between two checkpoints at most."""
METRICS = ("HR@1", "HR@3", "NDCG@3")
WATCHED = "NDCG@3"
"""What is kept of each user too, so that a rise can be distinguished from luck with a few of them."""
EXPECTED_REWARD = "reward"
"""Beside the metrics, where there is a reward: its mean under the candidates' probabilities, without sampling."""
MEASURED = (*METRICS, EXPECTED_REWARD)
SHOWN = ("loss", "reward", "hit_share", "invalid_share", "frac_reward_zero_std", "kl", "outside_mass")


class Validation:
    """Exact metrics of a model on a fixed slice of validation examples.

    `rewards` holds what each candidate's answer to each example would earn; the expected reward is then measured too.
    """

    names = MEASURED

    def __init__(
        self,
        examples: Sequence[RankingExample],
        tasks: Sequence[ScoringTask],
        max_tokens: int,
        rewards: Sequence[Sequence[float]] | None = None,
    ) -> None:
        self.examples, self.tasks, self.max_tokens, self.rewards = examples, tasks, max_tokens, rewards

    def measure(self, model: Any, rank: int = 0, world_size: int = 1) -> dict[str, float]:
        """The means of HR@1, HR@3, NDCG@3 and, where there is one, the expected reward."""
        return averaged(self.by_user(model, rank, world_size))

    def by_user(self, model: Any, rank: int = 0, world_size: int = 1) -> FloatArray:
        """The metrics of every example, (examples, metrics); a process scores its share, and each gets the whole."""
        mine = list(range(rank, len(self.tasks), world_size))
        with folded_meanwhile(model):
            scored = list(self.scored(model, mine))
        pairs = gather_object(scored) if world_size > 1 else scored
        scores_BC = [scores for _, scores in sorted(pairs)]
        rankings = map(ranking_of, self.examples, scores_BC)
        values = per_user([position_of(ranking) for ranking in rankings], METRICS)
        if self.rewards is None:
            return values
        expected = [np.dot(distribution(scores), paid) for scores, paid in zip(scores_BC, self.rewards, strict=True)]
        return np.column_stack([values, expected])

    def scored(self, model: Any, indices: Sequence[int]) -> Iterator[tuple[int, list[float]]]:
        """(index, scores of the candidates) of some examples."""
        for row, scores in scorer_of(model, self.max_tokens).score([self.tasks[index] for index in indices]):
            yield indices[row], scores


class LossValidation:
    """The mean loss of the right answers on a fixed slice of validation examples, in nats a token.

    It takes no more than plain forward passes, one for each example, so that every causal LM can be validated by it.
    `texts` holds the tokens of each prompt and of the answer to it.
    """

    names = (LOSS,)

    def __init__(self, texts: Sequence[tuple[list[int], list[int]]]) -> None:
        self.texts = texts

    def by_user(self, model: Any, rank: int = 0, world_size: int = 1) -> FloatArray:
        """The loss of every example, (examples, 1); a process reads its share, and each gets the whole."""
        mine = list(range(rank, len(self.texts), world_size))
        with evaluating(model):
            read = [(index, answer_loss(model, *self.texts[index])) for index in mine]
        pairs = gather_object(read) if world_size > 1 else read
        return np.array([[loss] for _, loss in sorted(pairs)])


class ValidationCallback(TrainerCallback):
    """Measures at the start, every `every` steps and at the end, and keeps the weights of the best reading.

    The best has the highest `select_by`, one of the measured, or the lowest loss; the first of equals. `save` writes
    the model's weights into a folder. What was measured goes to training.jsonl, and NDCG@3 of each user (or the loss)
    to validation.jsonl: a resumed run knows the readings so far. With every best reading goes a checkpoint, so that no
    resumed run starts before weights that it already keeps.
    """

    def __init__(
        self,
        folder: Path,
        validation: Validation | LossValidation,
        every: int,
        save: Callable[[Any, Path], None],
        select_by: str = WATCHED,
    ) -> None:
        self.folder, self.validation, self.every, self.save = folder, validation, every, save
        self.select_by = select_by
        self.readings: dict[int, dict[str, float]] = {}
        self.by_user: dict[int, list[float]] = {}

    @property
    def best_step(self) -> int | None:
        sign = -1 if self.select_by == LOSS else 1
        return max(self.readings, key=lambda step: (sign * self.readings[step][self.select_by], -step), default=None)

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.readings = read_readings(self.folder, up_to=state.global_step)
        self.by_user = read_by_user(self.folder, up_to=state.global_step)
        if state.global_step == 0:
            self._measure(args, state, model)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            self._measure(args, state, model)
            if self.best_step == state.global_step:
                control.should_save = True

    def _measure(self, args: Any, state: Any, model: Any) -> None:
        unwrapped = getattr(model, "module", model)
        values = self.validation.by_user(unwrapped, args.process_index, args.world_size)
        names = self.validation.names
        watched = WATCHED if WATCHED in names else names[0]
        metrics, column = averaged(values, names), values[:, names.index(watched)].tolist()
        self.readings[state.global_step], self.by_user[state.global_step] = metrics, column
        if not state.is_world_process_zero:
            return
        append_log(self.folder, state.global_step, {f"valid_{name}": value for name, value in metrics.items()})
        append_log(self.folder, state.global_step, {watched: column}, VALIDATED)
        note(f"step {state.global_step}: validation " + ", ".join(f"{k} {v:.3f}" for k, v in metrics.items()))
        if self.best_step == state.global_step:
            draft = self.folder / DRAFT
            shutil.rmtree(draft, ignore_errors=True)
            self.save(unwrapped, draft)
            shutil.rmtree(self.folder / BEST, ignore_errors=True)
            draft.rename(self.folder / BEST)


class LogCallback(TrainerCallback):
    """Appends what the trainer logs to training.jsonl, shows the figures that matter, and draws the progress bar."""

    def __init__(self, folder: Path, title: str) -> None:
        self.folder, self.title = folder, title
        self._bar = ExitStack()
        self._advance: Callable[[int], None] = lambda _amount: None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._advance = self._bar.enter_context(progress(self.title, state.max_steps))
        self._advance(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._advance(1)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if state.is_world_process_zero and logs:
            append_log(self.folder, state.global_step, logs)
            shown = [f"{name} {logs[name]:.3g}" for name in SHOWN if name in logs]
            if shown:
                note(f"step {state.global_step} of {state.max_steps}: {', '.join(shown)}")

    def close(self) -> None:
        """Take the bar away, however training ended."""
        self._bar.close()


class InterruptCallback(TrainerCallback):
    """Ctrl-C ends training after the step in progress, with a checkpoint to resume from; a second one at once."""

    def __init__(self) -> None:
        self.interrupted = False
        self._before: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._before = signal.signal(signal.SIGINT, self._stop)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.world_size > 1:
            self.interrupted = any(gather_object([self.interrupted]))
        if self.interrupted:
            control.should_save = True
            control.should_training_stop = True

    def restore(self) -> None:
        """Put back what Ctrl-C did before training."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.interrupted = True
        note("Stopping after this step; a checkpoint is being kept (Ctrl-C again stops at once).")
        if "WORLD_SIZE" not in os.environ:  # a launcher passes the same Ctrl-C on a second time
            signal.signal(signal.SIGINT, signal.default_int_handler)


class TimedSaveCallback(TrainerCallback):
    """A checkpoint every ten minutes at least, after the step in progress, whatever --save-steps asks for."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._saved = clock, clock()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._saved = self._clock()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        due = self._clock() - self._saved >= SAVE_SECONDS
        if args.world_size > 1:
            due = any(gather_object([due]))
        if due:
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._saved = self._clock()


def averaged(values: FloatArray, names: Sequence[str] = MEASURED) -> dict[str, float]:
    """The mean of each metric, and of the expected reward where that is the last column."""
    return dict(zip(names, means(values), strict=False))


def answer_loss(model: Any, prompt_T: Sequence[int], answer_T: Sequence[int]) -> float:
    """The cross-entropy of an answer behind its prompt, the mean over its tokens, in nats."""
    input_ids = torch.tensor([[*prompt_T, *answer_T]], device=model.device)
    logits_TV = model(input_ids=input_ids, use_cache=False).logits[0, len(prompt_T) - 1 : -1].float()
    return float(torch.nn.functional.cross_entropy(logits_TV, input_ids[0, len(prompt_T) :]))


def append_log(folder: Path, step: int, row: Mapping[str, Any], log: str = LOG) -> None:
    with (folder / log).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, **row}) + "\n")


def read_readings(folder: Path, up_to: int) -> dict[int, dict[str, float]]:
    """The validation metrics in training.jsonl by step, as far as a run that resumes at step `up_to` got."""
    if not (folder / LOG).exists():
        return {}
    rows = [row for row in read_jsonl(folder / LOG) if row["step"] <= up_to]
    return {
        row["step"]: {name: row[f"valid_{name}"] for name in (*MEASURED, LOSS) if f"valid_{name}" in row}
        for row in rows
        if {f"valid_{WATCHED}", f"valid_{LOSS}"} & row.keys()
    }


def read_by_user(folder: Path, up_to: int) -> dict[int, list[float]]:
    """The watched metric of each user in validation.jsonl by step, or the loss."""
    rows = read_jsonl(folder / VALIDATED) if (folder / VALIDATED).exists() else ()
    return {row["step"]: row[LOSS if LOSS in row else WATCHED] for row in rows if row["step"] <= up_to}
