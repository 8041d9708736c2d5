"""The GPU memory that each stage of a recipe needs, by arithmetic alone: no model is loaded.

With P parameters, L layers, hidden width d, h = heads x head size, k = key-value heads x head size, MLP width f and
vocabulary V, in bytes:

    weights                 2 P (bfloat16); 18 P when all weights are trained (float32 weight 4, its bfloat16 copy 2,
                            gradient 4, Adam 8); 4 P while merging (float32)
    adapters                16 A (float32 weight, gradient, two Adam moments), A = r L sum of (in + out) of the seven
                            linear layers
    a, saved by a layer     23 d + 15 h + 4 k + 9 f for each token (listed at `Shape.saved_bytes`), in training
                            without dropout 5 d + h + f less
    a training step         n tokens: n (2 d L + 1.5 a) with gradient checkpointing, n (L + 0.5) a without
    no gradients            0.7 a n
    logits in training      TRL projects in tiles: min(n, 4096) x min(V, 32768) x 2
    logits when scoring     2048 rows x V x 10 (bfloat16, float32 and the log-sum-exp's copy)
    logits when generating  sequences x V x 12
    logits of exact GRPO    12 V for every token of every candidate: all of them are kept for the gradient
    key-value cache         4 k L for each token of each sequence

A stage needs its weights and adapters, its largest moment, 0.7 GiB for the CUDA context and a tenth of the moment for
what the allocator can't reuse. The factors 1.5, 0.5 and 0.7 come from counting live tensors.

The sizes of a language model are read from its config.json, or known by its name. Covered are decoder-only transformers
with gated MLPs: Llama, Mistral, Qwen2 and Qwen3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mllmrec.errors import SettingsError
from mllmrec.records import Table

GIB = 1 << 30
CONTEXT_BYTES = 0.7 * GIB
SLACK = 0.1
NO_GRAD_SHARE = 0.7
TILE_TOKENS, TILE_VOCABULARY = 4096, 32768
PROJECTED_ROWS = 2048
VALIDATION_TOKENS = 8192

# Tokens of the parts of a prompt, on the long side; a prompt never passes --max-prompt-tokens.
TEMPLATE_TOKENS, ITEM_TOKENS, CAPTION_TOKENS, HINT_TOKENS, ANSWER_TOKENS = 60, 26, 70, 200, 24
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
SIZES = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "vocab_size")


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """The memory of one stage, in GiB; `moment` names its largest moment, `advice` is empty where it fits."""

    stage: str
    weights: float
    adapters: float
    moment: str
    working: float
    reserve: float
    advice: str = ""

    @property
    def total(self) -> float:
        return self.weights + self.adapters + self.working + self.reserve


def memory_plan(config: Mapping[str, Any], blocks: Mapping[str, Mapping[str, Any]], gpu_gb: float) -> list[StagePlan]:
    """The plan of each stage of `blocks` on a GPU of `gpu_gb` GiB.

    A key of `blocks` is the stage's name in the plan and starts with its verb (sft, merge, grpo or evaluate); a block
    holds the settings of that verb. `config` is the model's config.json.
    """
    shape = Shape.of(config)
    plans = []
    for stage, block in blocks.items():
        plan = plan_stage(stage, shape, block)
        if plan.total > gpu_gb:
            plan = StagePlan(**{**vars(plan), "advice": _advice(stage, shape, block, gpu_gb, plan.total)})
        plans.append(plan)
    return plans


def plan_stage(stage: str, shape: Shape, block: Mapping[str, Any]) -> StagePlan:
    """The memory of a stage, on any GPU; without advice."""
    verb = stage.split()[0].rstrip(",")
    weights, adapters = 2.0 * shape.num_parameters, 0.0
    if verb == "merge":
        weights *= 2
    elif block.get("peft") == "none":
        weights *= 9
    elif verb in ("sft", "grpo"):
        adapters = 16.0 * shape.adapter_parameters(block["rank"])
    moments = dict(_moments(verb, shape, block))
    moment = max(moments, key=lambda name: moments[name])
    working = moments[moment]
    return StagePlan(
        stage=stage,
        weights=weights / GIB,
        adapters=adapters / GIB,
        moment=moment,
        working=working / GIB,
        reserve=(CONTEXT_BYTES + SLACK * working) / GIB,
    )


def prompt_tokens(block: Mapping[str, Any]) -> int:
    """The length of a long prompt: template, history and candidates with their captions, a hint."""
    items: int = block["min_inter"] - 1 + block["num_neg"] + 1
    item = ITEM_TOKENS + (CAPTION_TOKENS if block["captions"] != "off" else 0)
    hint = HINT_TOKENS if block.get("use_cot") else 0
    budget: int = block["max_prompt_tokens"]
    return min(TEMPLATE_TOKENS + items * item + hint, budget)


def plan_table(plans: list[StagePlan], backbone: str, parameters: int, gpu_gb: float) -> Table:
    """The plans of all stages as a table."""
    rows = tuple(
        (
            plan.stage,
            f"{plan.weights:.1f}",
            f"{plan.adapters:.1f}",
            f"{plan.working:.1f} ({plan.moment})",
            f"{plan.reserve:.1f}",
            f"{plan.total:.1f}",
            f"no; {plan.advice}" if plan.advice else "yes",
        )
        for plan in plans
    )
    return Table(
        title=f"Memory of {backbone} ({parameters / 1e9:.2f}B parameters) on a GPU of {gpu_gb:g} GiB",
        columns=("stage", "weights", "adapters", "largest moment", "reserve", "total GiB", "fits"),
        rows=rows,
        note="an estimate by arithmetic, on the long side; one process on one GPU",
    )


def _moments(verb: str, shape: Shape, block: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """(name, bytes) of the moments in which a stage may need the most memory."""
    if verb == "merge":
        yield "comparing logits", 0.1 * shape.num_parameters + 64 * shape.vocabulary * 4
        return
    prompt = prompt_tokens(block)
    if verb == "sft":
        yield "a training step", _training_step(shape, block, prompt + ANSWER_TOKENS)
    elif verb == "grpo":
        yield from _grpo_moments(shape, block, prompt)
    elif block["method"] == "generate":
        lines = max(block["top_k"]) if block["list_prompt"] else 1
        sequences = block["batch"] * (1 if block["list_prompt"] else max(block["top_k"]))
        yield "generating", _generating(shape, sequences, prompt, lines * block["max_answer_tokens"])
    else:
        yield "scoring", _scoring(shape, block["batch_tokens"], prompt, block["num_neg"] + 1)
    if verb in ("sft", "grpo"):
        yield "validation", _scoring(shape, VALIDATION_TOKENS, prompt, block["num_neg"] + 1)


def _grpo_moments(shape: Shape, block: Mapping[str, Any], prompt: int) -> Iterator[tuple[str, float]]:
    """(name, bytes) of the moments of GRPO; a row holds one answer, or with exact rollouts a whole candidate list."""
    answers, completion = block["batch"] * block["accum"], block["max_completion_length"]
    if block["rollouts"] == "exact":
        yield "a training step", _exact_step(shape, block, prompt)
        return
    yield "a training step", _training_step(shape, block, prompt + completion)
    if block["rollouts"] == "generate":
        yield "sampling answers", _generating(shape, answers, prompt, completion)


def _training_step(shape: Shape, block: Mapping[str, Any], length: int) -> float:
    tokens: int = block["batch"] * length
    kept = tokens * _kept_of_a_token(shape, block)
    return kept + 2 * min(tokens, TILE_TOKENS) * min(shape.vocabulary, TILE_VOCABULARY)


def _exact_step(shape: Shape, block: Mapping[str, Any], prompt: int) -> float:
    """Rows of a prompt with all its candidates behind it, as many as a forward pass takes."""
    prompts = max(1, block["batch"] * block["accum"] // block["num_generations"])
    rows: int = min(block["batch"], prompts)
    answers: int = (block["num_neg"] + 1) * ANSWER_TOKENS
    kept = rows * (prompt + answers) * _kept_of_a_token(shape, block)
    return kept + 12 * rows * answers * shape.vocabulary


def _kept_of_a_token(shape: Shape, block: Mapping[str, Any]) -> float:
    """Bytes that the layers keep for each token until its gradient is computed."""
    drops_out = block.get("peft") != "none" and block.get("lora_dropout", 0) > 0
    saved = shape.saved_bytes - (0 if drops_out else shape.mask_bytes)
    if block["gradient_checkpointing"] == "off":
        return (shape.layers + 0.5) * saved
    return 2 * shape.hidden * shape.layers + 1.5 * saved


def _generating(shape: Shape, sequences: int, prompt: int, answer: int) -> float:
    cache = sequences * (prompt + answer) * shape.cache_bytes
    return cache + sequences * (NO_GRAD_SHARE * shape.saved_bytes * prompt + 12 * shape.vocabulary)


def _scoring(shape: Shape, batch_tokens: int, prompt: int, candidates: int) -> float:
    row = prompt + candidates * ANSWER_TOKENS
    users = max(1, batch_tokens // row)
    rows = min(PROJECTED_ROWS, users * candidates * ANSWER_TOKENS)
    return NO_GRAD_SHARE * shape.saved_bytes * users * row + 10 * rows * shape.vocabulary


def _advice(stage: str, shape: Shape, block: Mapping[str, Any], gpu_gb: float, total: float) -> str:
    """The smallest change of knobs that makes the stage fit, or what it takes when none does."""
    if stage.startswith("merge"):
        return f"--device cpu, with {4 * shape.num_parameters / GIB:.0f} GiB of main memory"
    for change in _changes(stage.split()[0].rstrip(","), block):
        changed = plan_stage(stage, shape, {**block, **change}).total
        if changed <= gpu_gb:
            flags = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in change.items())
            return f"{flags}: {changed:.1f} GiB"
    return f"no knob is enough: a GPU of {math.ceil(total)} GiB, or a smaller backbone"


def _changes(verb: str, block: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Changes to try, each at least as thorough as the one before; the first ones leave the result alone."""
    change: dict[str, Any] = {}
    if verb == "evaluate":
        name = "batch" if block["method"] == "generate" else "batch_tokens"
        floor = 1 if name == "batch" else 256
        for value in _halvings(block[name], floor):
            yield {name: value}
        return
    if block["gradient_checkpointing"] == "off":
        change["gradient_checkpointing"] = "on"
        yield dict(change)
    answers = block["batch"] * block["accum"]
    for batch in _halvings(block["batch"], 1):
        change |= {"batch": batch, "accum": answers // batch}
        yield dict(change)
    if verb == "sft" and block.get("peft") == "none":
        yield change | {"peft": "lora"}
    if verb == "grpo":
        for accum in _halvings(answers, block["num_generations"]):
            yield change | {"batch": 1, "accum": accum}
        for group in _halvings(block["num_generations"], 2):
            yield change | {"batch": 1, "accum": group, "num_generations": group}


def _halvings(value: int, floor: int) -> Iterator[int]:
    while value // 2 >= floor:
        value //= 2
        yield value


def _qwen3(layers: int, hidden: int, mlp: int, heads: int, *, tied: bool) -> dict[str, Any]:
    return {
        "model_type": "qwen3",
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "num_attention_heads": heads,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "tie_word_embeddings": tied,
    }


KNOWN_CONFIGS = {
    "Qwen3-0.6B": _qwen3(28, 1024, 3072, 16, tied=True),
    "Qwen3-1.7B": _qwen3(28, 2048, 6144, 16, tied=True),
    "Qwen3-4B": _qwen3(36, 2560, 9728, 32, tied=True),
    "Qwen3-8B": _qwen3(36, 4096, 12288, 32, tied=False),
    "Qwen3-14B": _qwen3(40, 5120, 17408, 40, tied=False),
}


def known_config(name: str) -> dict[str, Any] | None:
    """The configuration of a well-known backbone by its hub id or folder name; None for any other.

    >>> known_config("Qwen/Qwen3-4B-Instruct-2507")["num_hidden_layers"]
    36
    """
    last = name.rstrip("/").rsplit("/", 1)[-1]
    for known, config in KNOWN_CONFIGS.items():
        if last == known or last.startswith(f"{known}-"):
            return config
    return None


def num_parameters(config: Mapping[str, Any]) -> int:
    """The number of parameters of a causal language model, tied embeddings counted once.

    Raises SettingsError for a family whose layers aren't known here.
    """
    return Shape.of(config).num_parameters


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Layers and widths; `queries` and `keys` are the widths of all heads together."""

    layers: int
    hidden: int
    mlp: int
    queries: int
    keys: int
    vocabulary: int
    num_parameters: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape:
        family = config.get("model_type")
        if family not in FAMILIES:
            raise SettingsError(
                f"The memory of a {family or 'nameless'} model can't be planned: expected model_type to be one of "
                f"{', '.join(FAMILIES)}. Plan with a backbone of one of these families."
            )
        if absent := [name for name in SIZES if not isinstance(config.get(name), int)]:
            raise SettingsError(
                f"The memory of this {family} model can't be planned: its config.json has no {', '.join(absent)}. "
                "Fetch the model again."
            )
        layers, d, f, heads, vocabulary = (config[name] for name in SIZES)
        head = config.get("head_dim") or d // heads
        h, k = heads * head, (config.get("num_key_value_heads") or heads) * head
        bias = bool(config.get("attention_bias"))
        attention = 2 * d * h + 2 * d * k
        attention += (h + 2 * k) * (bias or family == "qwen2") + d * bias + 2 * head * (family == "qwen3")
        mlp = 3 * d * f + (2 * f + d) * bool(config.get("mlp_bias"))
        embeddings = vocabulary * d * (1 if config.get("tie_word_embeddings") else 2)
        return cls(
            layers=layers,
            hidden=d,
            mlp=f,
            queries=h,
            keys=k,
            vocabulary=vocabulary,
            num_parameters=embeddings + layers * (attention + mlp + 2 * d) + d,
        )

    def adapter_parameters(self, rank: int) -> int:
        """LoRA of `rank` on the seven linear layers of every block."""
        d, h, k, f = self.hidden, self.queries, self.keys, self.mlp
        return rank * self.layers * (2 * (d + h) + 2 * (d + k) + 3 * (d + f))

    @property
    def saved_bytes(self) -> int:
        """What one layer saves for the backward pass of LoRA under bfloat16 autocast, for each token.

        Inputs of the seven linear layers (2 bytes) and their dropout masks (1), float32 inputs of the four norms, q,
        k, v and the output of attention with keys repeated for every query head, three products of the MLP.
        """
        d, h, k, f = self.hidden, self.queries, self.keys, self.mlp
        norms, attention, mlp = 8 * d + 4 * (h + k), 8 * h, 6 * f
        return 3 * self.mask_bytes + norms + attention + mlp

    @property
    def mask_bytes(self) -> int:
        """The part of `saved_bytes` that is dropout masks: a byte for each input of a linear layer, for each token."""
        return 5 * self.hidden + self.queries + self.mlp

    @property
    def cache_bytes(self) -> int:
        """Keys and values of one token in all layers, bfloat16."""
        return 4 * self.keys * self.layers
