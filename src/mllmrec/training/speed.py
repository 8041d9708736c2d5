"""How long training and ranking take on this machine's processor, timed on a few layers before a model is loaded.

    seconds(L) = seconds(n) + (L - n) / n * (seconds(2 n) - seconds(n))

Models of n and of 2n layers, as wide as the real one and with random weights, do the stage's own work on the data's own
prompts: the trainer's steps, validation, scores. n is one where all layers are alike, else a round of their kinds. What
doesn't grow with the layers (writing prompts, embedding, projection onto the vocabulary, the trainer itself) is in the
first term. Each model works for about two seconds.

A piece of work takes the lesser of elapsed time and processor time, so that other programs don't count while this one
computes on one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from mllmrec.data.prompts import PromptFormat
from mllmrec.data.sequences import Catalogue, Interactions
from mllmrec.evaluation.ranking.chunks import chunk_ranker
from mllmrec.models.chat import Chat
from mllmrec.models.chat_templates import read_template
from mllmrec.models.huggingface import LoadedModel, quieten, read_config, read_pretrained
from mllmrec.models.ranker import BATCH_TOKENS, ranker_of
from mllmrec.records import RankingExample
from mllmrec.settings.evaluation import EvaluateSettings
from mllmrec.settings.training import LOSS, GrpoSettings, SftSettings
from mllmrec.storage.manifests import Manifest
from mllmrec.storage.workspace import Workspace
from mllmrec.training import sft
from mllmrec.training.callbacks import LossValidation, Validation
from mllmrec.training.compact import FEW_LAYERS, answers_last, answers_only, without_padding_mask
from mllmrec.training.datasets import TrainingExamples, training_examples, validation_examples
from mllmrec.training.grpo import exact
from mllmrec.training.grpo import stage as grpo
from mllmrec.training.lora_targets import lora_for
from mllmrec.training.setup import TrainerParts, asked_format, validation_steps

SECONDS, MOST_STEPS, MOST_USERS = 2.0, 12, 32
"""Bounds on what one model of a few layers is timed with."""
SMALL_LAYER, PASSES = 1_000_000, 4
"""Numbers in a layer up to which an update counts beside its passes, so that a timed step has several of them."""


@dataclass(frozen=True, kw_only=True)
class TrainingTime:
    """Seconds of a step and of a validation, and how many of each a run has."""

    steps: int
    step_seconds: float
    readings: int
    reading_seconds: float

    @property
    def seconds(self) -> float:
        return self.steps * self.step_seconds + self.readings * self.reading_seconds


def time_training(settings: SftSettings | GrpoSettings, workspace: Workspace, source: str) -> TrainingTime:
    """What `sft`, or `grpo` by exact rollouts, takes with a model shaped like the one in the folder `source`.

    Raises what the stage itself would for settings or data that don't go together.
    """
    settings = settings.model_copy(update={"device": "cpu", "workers": 0, "track": False})
    interactions = Interactions.load(workspace, settings.dataset)
    chosen, captions = asked_format(settings, workspace)
    examples = training_examples(settings, workspace, interactions, chosen.window)
    validated = validation_examples(settings, interactions, chosen.window)
    if isinstance(settings, SftSettings):
        steps = sft.total_steps(len(examples), settings)
    else:
        grpo.check_divisibility(settings)
        steps = grpo.total_steps(len(examples), settings)
    every = validation_steps(settings, steps)
    shortened, share = _shorter_steps(settings, source)
    num_timed = 0

    def measure(small: LoadedModel, folder: Path, layers: int) -> tuple[float, float]:
        nonlocal num_timed
        encoder = ranker_of(small, interactions.catalogue, captions, chosen.max_prompt_tokens).encoder
        step, model = _time_steps(shortened, folder, small, encoder, examples, layers)
        tasks = [encoder.scoring_task(example) for example in validated[:MOST_USERS]]
        texts = [(encoder.prompt_ids(one), encoder.answer_ids(one.target_id)) for one in validated[:MOST_USERS]]

        def validate(count: int) -> None:
            exact_scores = Validation(validated[:count], tasks[:count], BATCH_TOKENS)
            (LossValidation(texts[:count]) if settings.select_by == LOSS else exact_scores).by_user(model)

        num_timed, reading = _time_users(validate, len(tasks), num_timed)
        return step * share, reading * len(validated)

    step_seconds, reading_seconds = _by_layers(source, settings.chat_template, measure)
    return TrainingTime(
        steps=steps,
        step_seconds=step_seconds,
        readings=len({0, *range(every, steps + 1, every), steps}) if validated else 0,
        reading_seconds=reading_seconds,
    )


def time_ranking(
    settings: EvaluateSettings,
    source: str,
    catalogue: Catalogue,
    captions: dict[str, str],
    examples: Sequence[RankingExample],
) -> float:
    """Seconds in which `evaluate` scores the candidates of one user, with a model shaped like the one in `source`."""
    num_timed = 0

    def measure(small: LoadedModel, _folder: Path, _layers: int) -> tuple[float]:
        nonlocal num_timed
        ranker = ranker_of(
            small, catalogue, captions, settings.max_prompt_tokens, settings.batch_tokens, settings.layout
        )
        rank = chunk_ranker(settings, ranker)
        num_timed, seconds = _time_users(lambda count: rank(examples[:count]), len(examples), num_timed)
        return (seconds,)

    return _by_layers(source, settings.chat_template, measure)[0]


def _by_layers(
    source: str, chat_template: str, measure: Callable[[LoadedModel, Path, int], tuple[float, ...]]
) -> list[float]:
    """What `measure` gives of models of few layers, carried on to the layers of the model in `source`.

    It is given a model, a folder with its configuration, and the layers of the real one.
    """
    quieten()
    config = read_config(source).get_text_config()
    layers, n = config.num_hidden_layers, _round_of(config)
    depths = (n, 2 * n) if layers > 2 * n else (layers,)
    measured = []
    for depth in depths:
        with _shallow(source, chat_template, depth) as (small, folder):
            measured.append(measure(small, folder, layers))
    if len(measured) == 1:
        return [*measured[0]]
    return [few + (layers - n) / n * max(0.0, many - few) for few, many in zip(*measured, strict=True)]


@contextmanager
def _shallow(source: str, chat_template: str, layers: int) -> Iterator[tuple[LoadedModel, Path]]:
    """A model of the first `layers` layers' shape with random weights in float32, and a folder for its trainer."""
    config = read_config(source).get_text_config()
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layers]
    tokenizer = read_pretrained(AutoTokenizer, source)
    trained = PromptFormat.of(Manifest.read(Path(source)))
    chat = Chat(tokenizer, trained=trained, template=read_template(chat_template))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        yield LoadedModel(model=model, tokenizer=tokenizer, chat=chat, names=(source,), hashes={}), Path(folder)


def _round_of(config: Any) -> int:
    """After how many layers their kinds repeat themselves."""
    kinds = getattr(config, "layer_types", None) or ["one"]
    return next(n for n in range(1, len(kinds) + 1) if all(kinds[i] == kinds[i % n] for i in range(len(kinds))))


def _shorter_steps(settings: SftSettings | GrpoSettings, source: str) -> tuple[Any, float]:
    """The settings of steps with few forward passes, and how many such steps make one of the real ones."""
    if isinstance(settings, GrpoSettings):
        rows, passes = exact.split_step(settings)
        return settings.model_copy(update={"batch": rows, "accum": settings.num_generations}), passes
    config = read_config(source).get_text_config()
    is_small = 4 * config.hidden_size * (config.hidden_size + config.intermediate_size) <= SMALL_LAYER
    passes = min(settings.accum, PASSES if is_small else 1)
    return settings.model_copy(update={"accum": passes}), settings.accum / passes


def _time_steps(
    settings: SftSettings | GrpoSettings,
    folder: Path,
    small: LoadedModel,
    encoder: Any,
    examples: TrainingExamples,
    layers: int,
) -> tuple[float, Any]:
    """Mean seconds of the first steps but the very first, and the model as the trainer has it."""

    def parts(steps: int, lora: LoraConfig | None) -> TrainerParts[Any]:
        return TrainerParts(
            settings=settings, folder=folder, loaded=small, encoder=encoder, examples=examples, steps=steps, lora=lora
        )

    with ExitStack() as stack:
        stack.enter_context(answers_only())
        if isinstance(settings, SftSettings):
            steps = sft.total_steps(len(examples), settings)
            trainer: Any = sft.make_trainer(parts(steps, sft.lora_of(settings, str(folder))))
            if settings.objective == "answer":
                stack.enter_context(without_padding_mask(small.model))
            if settings.objective == "answer" and layers <= FEW_LAYERS:
                stack.enter_context(answers_last(small.model))
        else:
            steps = grpo.total_steps(len(examples), settings)
            adapters = lora_for(
                str(folder), rank=settings.rank, alpha=grpo.LORA_ALPHA, dropout=0.0, choice=settings.lora_targets
            )
            trainer = exact.make_trainer(parts(steps, adapters))
        watch = _Stopwatch()
        for printer in (ProgressCallback, PrinterCallback):
            trainer.remove_callback(printer)
        trainer.add_callback(watch)
        trainer.train()
    return fmean(watch.steps[1:] or watch.steps), trainer.accelerator.unwrap_model(trainer.model)


def _time_users(work: Callable[[int], Any], most: int, count: int = 0) -> tuple[int, float]:
    """How many users `work` was timed with (`count` of them, if given), and the seconds that each took."""
    if not most:
        return 0, 0.0
    work(1)
    if not count:
        few = min(most, 2)
        count = max(few, min(most, MOST_USERS, int(SECONDS * few / max(_seconds(lambda: work(few)), 1e-3))))
    return count, _seconds(lambda: work(count)) / count


class _Stopwatch(TrainerCallback):
    """Takes the time from the end of one step to the end of the next, and ends training when that is enough."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self._last = _now()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._last = _now()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        now = _now()
        self.steps.append(min(new - old for new, old in zip(now, self._last, strict=True)))
        self._last = now
        control.should_training_stop = len(self.steps) > 1 and (
            len(self.steps) > MOST_STEPS or sum(self.steps) > SECONDS
        )


def _seconds(work: Callable[[], Any]) -> float:
    begun = _now()
    work()
    return min(new - old for new, old in zip(_now(), begun, strict=True))


def _now() -> tuple[float, float]:
    """Elapsed and processor time."""
    return time.perf_counter(), time.process_time()
