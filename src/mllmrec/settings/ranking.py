"""Settings of `mllmrec evaluate`, and what every verb shares that ranks with a model."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import field_validator

from mllmrec.settings.base import knob
from mllmrec.settings.evaluation import RAW_IDS, RunSettings


class ModelRunSettings(RunSettings):
    """Which model ranks the candidates, and what its prompts hold."""

    backbone: str = knob("Qwen3-4B", "Model folder under the root, any path, or hub id.", operational=True)
    sft_tag: str = knob("", "Merged (or full) SFT model, in place of the backbone.", operational=True)
    tag: str = knob("", "Checkpoint: adapters on the model, or a full model.", operational=True)
    score: Literal["answer", "id"] = knob("answer", "What is scored: the whole answer, or its id alone.")
    captions: Literal["auto", "on", "off"] = knob("auto", "Captions in prompts; auto: as the checkpoint was trained.")
    max_prompt_tokens: int = knob(
        4096, "Budget of a prompt, as trained unless given; captions shorten first, then old history.", ge=64
    )
    batch_tokens: int = knob(
        8192, "Tokens in one forward pass, padding included; at most 2,048 on a CPU.", ge=256, operational=True
    )
    force: bool = knob(False, "Load adapters on another model than they were trained on.")
    device: Literal["auto", "cpu", "cuda", "mps"] = knob("auto", "Where to compute.", operational=True)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = knob(
        "auto", "Number format of the weights; auto: bfloat16 on a GPU, float32 elsewhere."
    )


class EvaluateSettings(ModelRunSettings):
    """Rank frozen candidates with a model, and tell HR, NDCG and MRR with intervals."""

    verb: ClassVar[str] = "evaluate"

    method: Literal["score", "generate"] = knob("score", "Exact scores of all candidates, or generated answers.")
    list_prompt: bool = knob(False, "With generate: ask for K ids in one answer, as the reference does.")
    max_answer_tokens: int = knob(64, "Longest generated answer, for each of its lines.", ge=8)
    raw_ids: bool = RAW_IDS
    batch: int = knob(1, "Users generated for at a time.", ge=1, operational=True)
    shard: str = knob(
        "", "Rank part i of n of the users only, written i/n; parts join by themselves.", operational=True
    )
    distributed: bool = knob(False, "Accepted for compatibility; the launcher's environment decides.", operational=True)

    @property
    def num_answers(self) -> int:
        """How many answers a user's ranking is made of; 0 when it is made of scores."""
        return max(self.top_k) if self.method == "generate" else 0

    @field_validator("shard")
    @classmethod
    def _shard(cls, value: str) -> str:
        part, slash, parts = value.partition("/")
        if value and not (slash and part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts)):
            raise ValueError(f"shard = {value!r}: expected i/n with i from 1 to n, such as 1/4")
        return value
