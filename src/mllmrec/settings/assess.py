"""Settings of `mllmrec assess`."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from mllmrec.settings.base import Names, knob
from mllmrec.settings.long import LongStageSettings


class AssessSettings(LongStageSettings):
    """Score every reasoning trace for trust, reject those that leak, and mark the best to keep.

    --keep and --threshold don't touch the scores: another choice is made anew from those that are stored, in seconds.
    """

    verb: ClassVar[str] = "assess"

    scorer: Names = knob(
        (),
        "Checkpoints that measure what a trace does for the target, comma-separated; together they must leave every "
        "user unseen by one of them (sft --fold 1/2 and --fold 2/2). None: that part is left out.",
    )
    keep: float = knob(
        0.5, "Share of the traces that aren't rejected to keep, the most trusted first.", operational=True, ge=0, le=1
    )
    threshold: float | None = knob(
        None, "Keep every trace of at least this confidence, in place of --keep.", operational=True, ge=0, le=1
    )
    embedder: str = knob(
        "tfidf", "What compares texts: tfidf, or a sentence-transformers model by folder or hub id (extra `embed`)."
    )
    orders: int = knob(4, "Candidate lists, freshly drawn and ordered, over which each lift is averaged.", ge=1)
    num_neg: int = knob(9, "Negatives beside the target in those lists.", ge=1)
    max_prompt_tokens: int = knob(4096, "Budget of a scorer's prompt; captions shorten first, then old history.", ge=64)
    seed: int = knob(42, "Seed of the drawn histories, negatives and orders.", ge=0)
    device: Literal["auto", "cpu", "cuda", "mps"] = knob("auto", "Where scorers compute.", operational=True)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = knob(
        "auto", "Number format of the scorers; auto: bfloat16 on a GPU, float32 elsewhere."
    )
    batch_tokens: int = knob(8192, "Tokens in one forward pass, padding included.", ge=256, operational=True)

    @model_validator(mode="after")
    def _one_choice(self) -> Self:
        if self.threshold is not None and "keep" in self.model_fields_set:
            raise ValueError("keep and threshold are two ways to choose: give one of them")
        return self
