"""The memory plan, against sums by hand and against tensors counted while a small model trains."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import Qwen3Config, Qwen3ForCausalLM

from mllmrec.doctor import memory as doctor_memory
from mllmrec.doctor.memory import KNOWN_CONFIGS, Shape, memory_plan, plan_stage, prompt_tokens
from mllmrec.models import logits
from mllmrec.settings.evaluation import EvaluateSettings
from mllmrec.settings.training import GrpoSettings, MergeSettings, SftSettings
from mllmrec.training import session

GIB = 1 << 30
QWEN3_4B = KNOWN_CONFIGS["Qwen3-4B"]
ROLLOUTS = ("generate", "candidates")
LORA = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def sft(**values: Any) -> dict[str, Any]:
    return SftSettings(dataset="d", captions="off", **values).model_dump()


def grpo(**values: Any) -> dict[str, Any]:
    return GrpoSettings(dataset="d", sft_tag="m", captions="off", **values).model_dump()


def evaluate(**values: Any) -> dict[str, Any]:
    return EvaluateSettings(dataset="d", captions="off", **values).model_dump()


def test_weights_adapters_and_a_training_step_by_hand() -> None:
    shape = Shape.of(QWEN3_4B)
    plan = plan_stage("sft", shape, sft())
    assert plan.weights == pytest.approx(2 * 4_022_468_096 / GIB)
    assert plan.adapters == pytest.approx(16 * 33_030_144 / GIB)
    saved = 23 * 2560 + 15 * 4096 + 4 * 1024 + 9 * 9728
    tokens = 2 * (60 + 19 * 26 + 24)
    step = tokens * (2 * 2560 * 36 + 1.5 * saved) + 2 * tokens * 32768
    scored = 2048 * 151936 * 10 + 0.7 * saved * (8192 // (554 + 240)) * (554 + 240)
    assert plan.moment == "validation"
    assert plan.working == pytest.approx(max(step, scored) / GIB)
    assert plan.reserve == pytest.approx(0.7 + 0.1 * plan.working)
    assert plan.total == pytest.approx(plan.weights + plan.adapters + plan.working + plan.reserve)


@pytest.mark.parametrize("settings", [{"lora_dropout": 0}, {"peft": "none"}], ids=["turned off", "all weights"])
def test_without_dropout_a_step_keeps_no_masks_by_hand(settings: dict[str, Any]) -> None:
    block, shape = {**sft(batch=16), "gradient_checkpointing": "off"}, Shape.of(QWEN3_4B)
    masks = 16 * (554 + 24) * 36.5 * (5 * 2560 + 4096 + 9728)
    with_masks, without = plan_stage("sft", shape, block), plan_stage("sft", shape, {**block, **settings})
    assert (with_masks.moment, without.moment) == ("a training step", "a training step")
    assert with_masks.working - without.working == pytest.approx(masks / GIB)


def test_the_cache_of_rollouts_by_hand() -> None:
    plan = plan_stage("grpo", Shape.of(QWEN3_4B), grpo())
    saved = 23 * 2560 + 15 * 4096 + 4 * 1024 + 9 * 9728
    cache = 32 * (554 + 128) * 2 * 36 * 8 * 128 * 2
    assert plan.moment == "sampling answers"
    assert plan.working == pytest.approx((cache + 32 * (0.7 * saved * 554 + 12 * 151936)) / GIB)


def test_exact_grpo_holds_whole_lists_and_samples_nothing_by_hand() -> None:
    plan = plan_stage("grpo", Shape.of(QWEN3_4B), {**grpo(rollouts="exact"), "gradient_checkpointing": "on"})
    saved, rows, answers = 18 * 2560 + 14 * 4096 + 4 * 1024 + 8 * 9728, 4, 10 * 24
    step = rows * (554 + answers) * (2 * 2560 * 36 + 1.5 * saved) + 12 * rows * answers * 151936
    assert plan.moment == "validation"
    assert step < plan.working * GIB
    unchecked = plan_stage("grpo", Shape.of(QWEN3_4B), {**grpo(rollouts="exact"), "gradient_checkpointing": "off"})
    assert unchecked.moment == "a training step"
    kept = rows * (554 + answers) * 36.5 * saved
    assert unchecked.working == pytest.approx((kept + 12 * rows * answers * 151936) / GIB)


def test_a_forward_pass_of_exact_grpo_holds_no_more_rows_than_a_step_has_prompts() -> None:
    shape, off = Shape.of(QWEN3_4B), {"gradient_checkpointing": "off"}
    two_prompts = plan_stage("grpo", shape, {**grpo(rollouts="exact", batch=16, accum=1, num_generations=8), **off})
    two_rows = plan_stage("grpo", shape, {**grpo(rollouts="exact", batch=2, accum=8, num_generations=8), **off})
    assert two_prompts.working == two_rows.working


def test_drawn_candidates_are_scored_and_not_decoded() -> None:
    names = {rollouts: plan_stage("grpo", Shape.of(QWEN3_4B), grpo(rollouts=rollouts)) for rollouts in ROLLOUTS}
    assert names["generate"].moment == "sampling answers"
    assert names["candidates"].moment != "sampling answers"
    assert names["candidates"].total < names["generate"].total


def test_training_all_weights_takes_eighteen_bytes_each() -> None:
    plan = plan_stage("sft", Shape.of(QWEN3_4B), sft(peft="none"))
    assert (plan.weights, plan.adapters) == (pytest.approx(18 * 4_022_468_096 / GIB), 0)


def test_prompts_grow_with_captions_hints_and_candidates_up_to_the_budget() -> None:
    assert prompt_tokens(sft()) == 60 + 19 * 26
    assert prompt_tokens(sft(use_cot=True)) == 60 + 19 * 26 + 200
    assert prompt_tokens({**sft(), "captions": "on"}) == 60 + 19 * 96
    assert prompt_tokens(evaluate(num_neg=99)) == 60 + 109 * 26
    assert prompt_tokens(evaluate(num_neg=99, max_prompt_tokens=1000)) == 1000


def test_what_fits_has_no_advice_and_what_does_not_has_one_that_fits() -> None:
    blocks = {"sft": sft(), "grpo": {**grpo(), "captions": "on"}}
    large = memory_plan(QWEN3_4B, blocks, 80)
    assert [plan.advice for plan in large] == ["", ""]
    small = memory_plan(QWEN3_4B, blocks, 16)[1]
    saved, prompt = 23 * 2560 + 15 * 4096 + 4 * 1024 + 9 * 9728, 60 + 19 * 96
    sampling = 8 * ((prompt + 128) * 4 * 1024 * 36 + 0.7 * saved * prompt + 12 * 151936)
    total = (2 * 4_022_468_096 + 16 * 33_030_144 + 1.1 * sampling) / GIB + 0.7
    assert small.advice == f"--batch 1 --accum 8: {total:.1f} GiB"


def test_advice_starts_with_what_leaves_the_result_alone() -> None:
    shape = Shape.of(QWEN3_4B)
    block = sft(gradient_checkpointing="off", batch=16)
    needed = plan_stage("sft", shape, {**block, "gradient_checkpointing": "on"}).total
    (plan,) = memory_plan(QWEN3_4B, {"sft": block}, needed + 0.01)
    assert plan.advice == f"--gradient-checkpointing on: {needed:.1f} GiB"


def test_halving_the_batch_keeps_the_step() -> None:
    block = {**sft(batch=64, accum=1), "captions": "on"}
    (plan,) = memory_plan(QWEN3_4B, {"sft": block}, 24)
    words = plan.advice.split(":")[0].split()
    assert words[0] == "--batch"
    assert words[2] == "--accum"
    assert int(words[1]) * int(words[3]) == 64


def test_advice_keeps_whole_groups() -> None:
    block = {**grpo(batch=4, accum=8, num_generations=8), "captions": "on"}
    for gpu in (10.5, 11, 12, 14, 18, 22):
        advice = memory_plan(QWEN3_4B, {"grpo": block}, gpu)[0].advice
        if advice.startswith("--"):
            words = advice.split(":")[0].split()
            flags = dict(zip(words[::2], map(int, words[1::2]), strict=True))
            assert flags["--batch"] * flags["--accum"] % flags.get("--num-generations", 8) == 0


def test_when_no_knob_is_enough_the_plan_says_so() -> None:
    (plan,) = memory_plan(QWEN3_4B, {"sft": sft()}, 4)
    assert plan.advice == "no knob is enough: a GPU of 14 GiB, or a smaller backbone"


def test_merging_goes_to_the_main_memory() -> None:
    block = MergeSettings(dataset="d").model_dump()
    (plan,) = memory_plan(QWEN3_4B, {"merge": block}, 12)
    assert plan.weights == pytest.approx(4 * 4_022_468_096 / GIB)
    assert plan.advice == "--device cpu, with 15 GiB of main memory"


def test_evaluation_shrinks_its_batch() -> None:
    scored = memory_plan(QWEN3_4B, {"evaluate": evaluate()}, 11)[0]
    assert scored.moment == "scoring"
    assert scored.advice.startswith("--batch-tokens ")
    generated = evaluate(method="generate", batch=64, top_k=(10,))
    plan = memory_plan(QWEN3_4B, {"evaluate, generate": generated}, 24)[0]
    assert plan.moment == "generating"
    assert plan.advice.startswith("--batch ")


@pytest.mark.parametrize(
    ("lesser", "greater"),
    [
        (sft(), sft(batch=32)),
        (sft(batch=32), sft(batch=32, gradient_checkpointing="off")),
        (sft(), sft(rank=64)),
        (sft(), sft(peft="none")),
    ],
)
def test_more_work_never_takes_less(lesser: dict[str, Any], greater: dict[str, Any]) -> None:
    shape = Shape.of(QWEN3_4B)
    assert plan_stage("sft", shape, lesser).total < plan_stage("sft", shape, greater).total


def test_the_plan_knows_the_batches_of_the_stages_it_plans() -> None:
    assert doctor_memory.PROJECTED_ROWS == logits.PROJECTED_ROWS
    assert doctor_memory.VALIDATION_TOKENS == session.BATCH_TOKENS


class LiveTensors(TorchDispatchMode):
    """Bytes of all tensors that are alive, and the most there ever were."""

    def __init__(self, known: list[torch.Tensor]) -> None:
        super().__init__()
        self.alive: dict[int, int] = {tensor.untyped_storage()._cdata: 0 for tensor in known}
        self.bytes = self.peak = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: Any) -> None:
        key, num_bytes = storage._cdata, storage.nbytes()
        if key not in self.alive:
            self.alive[key] = num_bytes
            self.bytes += num_bytes
            self.peak = max(self.peak, self.bytes)
            weakref.finalize(storage, self._remove, key, num_bytes)

    def _remove(self, key: int, num_bytes: int) -> None:
        self.alive.pop(key, None)
        self.bytes -= num_bytes


def counted_step(config: Qwen3Config, tokens: int, *, checkpointing: bool) -> int:
    """Peak bytes of a forward and backward pass of LoRA under autocast, weights and gradients left out."""
    model = get_peft_model(Qwen3ForCausalLM(config).to(torch.bfloat16), LoraConfig(r=2, target_modules=LORA))
    base = model.get_base_model()
    model.train()
    if checkpointing:
        base.activation_checkpointing_enable()
        base.enable_input_require_grads()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    grads = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    with LiveTensors([*model.parameters(), *grads, *model.buffers()]) as live:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = base.model(input_ids=torch.arange(tokens)[None], use_cache=False).last_hidden_state
        hidden.float().sum().backward()
    return live.peak


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft asks for it
@pytest.mark.parametrize("checkpointing", [True, False])
def test_activations_are_those_of_a_real_training_step(checkpointing: bool) -> None:
    """Qwen3-4B at an eighth of its width: without dropout, so the masks (a byte an input) are taken off the formula."""
    config = Qwen3Config(
        vocab_size=256,
        hidden_size=320,
        intermediate_size=1216,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=128,
        tie_word_embeddings=True,
    )
    shape, tokens = Shape.of(config.to_dict()), 96
    saved = shape.saved_bytes - shape.mask_bytes
    assert shape.mask_bytes == 5 * 320 + 512 + 1216
    planned = tokens * (2 * 320 * 2 + 1.5 * saved if checkpointing else 2.5 * saved)
    assert 0.75 < counted_step(config, tokens, checkpointing=checkpointing) / planned < 1.15
