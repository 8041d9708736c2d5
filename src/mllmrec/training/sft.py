"""`mllmrec sft`: fine-tune a backbone to answer `[ITEM_<id>] <title>` with the item that comes next.

TRL's SFTTrainer does the training, or with `--objective list` a trainer of whole candidate lists (listwise.py). Rows
are tokenised by our own renderer, the answer loss is on the answer and its end token alone, and nothing is ever cut:
the prompt budget shortens captions and old history instead. Every epoch has fresh negatives, because its rows are other
rows. Validation ranks by exact scores, and the best weights are kept.
"""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from typing import Any

from peft import LoraConfig
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from mllmrec.data.sequences import Interactions, require_dataset
from mllmrec.errors import BackendError, advising
from mllmrec.models.chat import Encoder
from mllmrec.models.huggingface import (
    Dtype,
    choose_device,
    load,
    portable,
    quantization,
    read_config,
    resolve,
)
from mllmrec.models.positions import verify_scaling
from mllmrec.models.ranker import ranker_of
from mllmrec.models.suitability import require_context, within_context
from mllmrec.progress import note
from mllmrec.records import RankingExample, Summary
from mllmrec.settings.training import SftSettings
from mllmrec.storage.locks import locking
from mllmrec.storage.manifests import finished
from mllmrec.storage.workspace import Workspace
from mllmrec.training import checkpoints, listwise
from mllmrec.training.compact import IGNORED, answers_last, without_padding_mask
from mllmrec.training.datasets import TrainingExamples, training_examples
from mllmrec.training.lora_targets import lora_for
from mllmrec.training.session import Session
from mllmrec.training.setup import (
    RowWriter,
    TrainerParts,
    asked_format,
    is_main_process,
    row_dataset,
    trainer_arguments,
    training_inputs,
    world_size,
)

LORA_ALPHA = 16
LORA_KNOBS = ("rank", "lora_dropout", "lora_targets")


@locking(lambda settings, workspace: workspace.checkpoint(settings.dataset, settings.tag))
def run(settings: SftSettings, workspace: Workspace) -> Summary:
    """Write checkpoints/<dataset>/<tag>/: LoRA adapters, or a whole model with `--peft none`."""
    started = time.monotonic()
    folder = workspace.checkpoint(settings.dataset, settings.tag)
    require_dataset(workspace, settings.dataset)
    source = resolve(workspace, settings.backbone)
    settings = within_context(settings, source)
    checkpoints.refuse_own_input(folder, source)
    inputs = training_inputs(settings, workspace, source)
    if (manifest := finished(folder, settings, inputs)) is not None:
        checkpoints.clear(folder)
        return Summary(headline=f"{folder} is finished; nothing to do.", artifact=folder, facts=manifest.details)
    require_context(source, settings.max_prompt_tokens)
    interactions = Interactions.load(workspace, settings.dataset)
    chosen, captions = asked_format(settings, workspace)
    draws = checkpoints.draws_of(folder, settings)
    examples = training_examples(settings, workspace, interactions, chosen.window, draws)
    lora = lora_of(settings, source)
    loaded = load(
        workspace,
        settings.backbone,
        device=settings.device,
        dtype=weights_dtype(settings),
        chat_template=settings.chat_template,
    )
    encoder = ranker_of(loaded, interactions.catalogue, captions, chosen.max_prompt_tokens).encoder
    steps = total_steps(len(examples), settings)
    last = checkpoints.begin(folder, settings, inputs, draws, main=is_main_process())
    parts = TrainerParts(
        settings=settings, folder=folder, loaded=loaded, encoder=encoder, examples=examples, steps=steps, lora=lora
    )
    trainer = make_trainer(parts)
    session = Session(settings, folder, inputs, started, chosen, encoder, trainer, draws)
    session.attach_validation(interactions, steps)
    with ExitStack() as stack:
        if settings.objective == "answer":
            stack.enter_context(without_padding_mask(loaded.model))
            stack.enter_context(answers_last(loaded.model))
        return session.train(last, _counts(settings, examples), portable(workspace, loaded.names[0]))


def total_steps(num_examples: int, settings: SftSettings) -> int:
    """Updates of the whole run: epochs x examples over what one step of all processes takes."""
    return max(1, math.ceil(settings.epochs * num_examples / (settings.batch * settings.accum * world_size())))


def weights_dtype(settings: SftSettings) -> Dtype:
    """Frozen weights may be bfloat16 on a GPU; weights that are trained stay float32 (autocast computes in bf16)."""
    on_gpu = choose_device(settings.device).type == "cuda"
    return "bfloat16" if on_gpu and settings.peft == "lora" else "float32"


def _counts(settings: SftSettings, examples: TrainingExamples) -> dict[str, int]:
    """The counts of the manifest, in which traces are called what they were."""
    as_thoughts = settings.cot_as == "answer"
    return {name.replace("hints", "thoughts") if as_thoughts else name: n for name, n in examples.counts.items()}


def _prompt_and_answer(
    settings: SftSettings, encoder: Encoder, example: RankingExample, trace: str | None
) -> tuple[list[int], list[int]]:
    """What the model reads and what it learns to write: the answer, with --cot-as answer behind the trace."""
    answer = encoder.answer_ids(example.target_id)
    if settings.cot_as == "hint" or trace is None:
        return encoder.prompt_ids(example, trace), answer
    thought = encoder.fit_thought(trace, settings.max_thought_tokens)
    if thought is None:
        return encoder.prompt_ids(example), answer
    return encoder.thinking_prompt_ids(example), [*encoder.chat.thought_ids(thought), *answer]


def lora_of(settings: SftSettings, source: str) -> LoraConfig | None:
    """The adapters that the settings name; None with `--peft none`."""
    if settings.peft == "none":
        if given := [f"--{name.replace('_', '-')}" for name in LORA_KNOBS if name in settings.model_fields_set]:
            note(f"{', '.join(given)}: without effect, since --peft none trains all weights and no adapters.")
        if method := quantization(read_config(source)):
            raise BackendError(
                f"{source} is stored in {method}, of which all weights can't be trained with --peft none. Train LoRA "
                "adapters (--peft lora), or fetch the model in an ordinary number format."
            )
        return None
    return lora_for(
        source,
        rank=settings.rank,
        alpha=LORA_ALPHA,
        dropout=settings.lora_dropout,
        choice=settings.lora_targets,
        insist="lora_dropout" in settings.model_fields_set,
    )


def make_trainer(parts: TrainerParts[SftSettings]) -> Any:
    """The trainer of the objective that the settings name."""
    objective = parts.settings.objective
    with advising(f"--objective {objective} learns from such scores: leave it out, with --validate loss."):
        return _answer_trainer(parts) if objective == "answer" else listwise.make_trainer(parts)


def _answer_trainer(parts: TrainerParts[SftSettings]) -> SFTTrainer:
    settings, loaded = parts.settings, parts.loaded

    def make(example: RankingExample, hint: str | None) -> dict[str, Any]:
        prompt, answer = _prompt_and_answer(settings, parts.encoder, example, hint)
        verify_scaling(loaded.model, len(prompt) + len(answer))
        return {"input_ids": prompt + answer, "labels": [IGNORED] * len(prompt) + answer}

    arguments = SFTConfig(
        **trainer_arguments(parts),
        per_device_train_batch_size=settings.batch,
        gradient_accumulation_steps=settings.accum,
        train_sampling_strategy="sequential",
        max_length=None,
        packing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    return SFTTrainer(
        model=loaded.model,
        args=arguments,
        train_dataset=row_dataset(parts.examples, settings.epochs),
        data_collator=RowWriter(
            examples=parts.examples,
            make=make,
            collate=DataCollatorForLanguageModeling(pad_token_id=loaded.tokenizer.pad_token_id),
        ),
        processing_class=loaded.tokenizer,
        peft_config=parts.lora,
    )
