"""Settings of the stages that write or judge texts: `caption`, `pseudo-cot`, `refine` and `assess`.

`LongStageSettings` is what every stage with a working log shares (how far it goes, how many failures it bears),
`TeacherSettings` what every stage shares whose texts a model may write.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, model_validator

from mllmrec.settings.base import Address, DatasetSettings, Names, knob

PIXELS_KNOWS = ("dataset", "backend", "max_pixels")
"""The knobs that decide captions made of image statistics."""
REFINER = "deepseek-r1-0528"
PROFILE_KNOWS = ("dataset", "backend", "captions", "seed", "min_inter", "windows")
"""The knobs that decide traces made of statistics."""


def variable_name(value: str) -> str:
    """The name of an environment variable; what isn't one may be a key, and isn't repeated."""
    if not re.fullmatch(r"[A-Za-z_]\w*", value):
        raise ValueError(
            "api_key_env is the name of an environment variable, such as OPENAI_API_KEY, and not the key itself"
        )
    return value


VariableName = Annotated[str, AfterValidator(variable_name)]


class LongStageSettings(DatasetSettings):
    """Settings of a stage that works through many records and goes on where it stopped."""

    limit: int | None = knob(None, "Work on the first N records; a larger N later extends.", operational=True, ge=1)
    retry_failed: bool = knob(False, "Try the failed records again.", operational=True)
    max_failure_share: float = knob(
        0.1, "Share of failed records beyond which the stage fails; what is done is kept.", operational=True, ge=0, le=1
    )


class TeacherSettings(LongStageSettings):
    """Settings of a stage whose texts a model writes, here or behind a server."""

    backend: str = knob("endpoint", "Who writes: huggingface (a local model) or endpoint (a server).")
    model: str = knob("", "Model folder under the root, any path, or hub id; for an endpoint, the name it serves.")
    base_url: Address = knob(
        "", "Address of an OpenAI-compatible server, such as http://127.0.0.1:8000/v1.", operational=True
    )
    api_key_env: VariableName = knob(
        "OPENAI_API_KEY", "Environment variable that holds the server's key.", operational=True
    )
    temperature: float = knob(0.0, "Sampling temperature of the writer; 0 is greedy.", ge=0)
    max_new_tokens: int = knob(256, "Longest text, in tokens, hidden reasoning included.", ge=8)
    thinking: bool = knob(
        False, "Let a local model that can reason do so before it answers; the reasoning itself is not kept."
    )
    max_inflight: int = knob(8, "Requests to the server at a time.", operational=True, ge=1)
    max_retries: int = knob(3, "Times a request is sent again after a busy or broken server.", operational=True, ge=0)
    timeout: float = knob(120.0, "Seconds to wait for one answer of the server.", operational=True, gt=0)
    batch: int = knob(8, "Texts written at a time by a local model.", operational=True, ge=1)
    device: Literal["auto", "cpu", "cuda", "mps"] = knob("auto", "Where a local model computes.", operational=True)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = knob(
        "auto", "Number format of a local model; auto: bfloat16 on a GPU, float32 elsewhere."
    )
    price_in: float = knob(0.0, "Price of a million prompt tokens.", operational=True, ge=0)
    price_out: float = knob(0.0, "Price of a million written tokens.", operational=True, ge=0)
    budget: float | None = knob(
        None, "Ask no more when this is spent or about to be, in the prices' money.", operational=True, gt=0
    )
    dry_run: bool = knob(
        False, "Report how many calls and about how many tokens it takes; spend nothing.", operational=True
    )


class CaptionSettings(TeacherSettings):
    """Turn each item's image into one sentence: from the image itself, by a vision model, or behind a server."""

    verb: ClassVar[str] = "caption"

    backend: Literal["pixels", "huggingface", "endpoint"] = knob(
        "pixels", "Who writes: pixels (image statistics, no model), huggingface (a local model), endpoint (a server)."
    )
    model: str = knob(
        "Qwen3-VL-8B-Instruct", "Vision model: folder, hub id, or the name an endpoint serves; pixels takes none."
    )
    max_new_tokens: int = knob(128, "Longest caption, in tokens.", ge=8)
    max_pixels: int = knob(
        1_048_576, "Pixels of an image; larger ones are scaled down, for pixels to 24,576 in any case.", ge=4096
    )

    def result_settings(self) -> dict[str, Any]:
        """Without the knobs of models, when none is asked."""
        chosen = super().result_settings()
        return chosen if self.backend != "pixels" else {name: chosen[name] for name in PIXELS_KNOWS}


class WriterSettings(TeacherSettings):
    """What `pseudo-cot` and `refine` share: the writer, and whether it sees captions."""

    backend: Literal["profile", "huggingface", "endpoint"] = knob(
        "profile", "Who writes: profile (from statistics, no model), huggingface (a local model), endpoint (a server)."
    )
    captions: Literal["auto", "on", "off"] = knob(
        "auto", "Show image captions to the writer; auto: where the captions file is there."
    )
    seed: int = knob(42, "Seed of the wording that profile draws.", ge=0)

    @model_validator(mode="after")
    def _writer_is_named(self) -> Self:
        if self.backend != "profile" and not self.model:
            raise ValueError(f"backend = {self.backend!r} needs --model: a folder, a hub id, or a name that is served")
        return self

    def result_settings(self) -> dict[str, Any]:
        """Without the knobs of models where profile writes, and without profile's where a model does."""
        chosen = super().result_settings()
        if self.backend == "profile":
            return {name: chosen[name] for name in PROFILE_KNOWS if name in chosen}
        return {name: value for name, value in chosen.items() if name != "seed"}


class PseudoCotSettings(WriterSettings):
    """Write a first chain of thought about each training history, blind to what came next."""

    verb: ClassVar[str] = "pseudo-cot"

    min_inter: int = knob(10, "Items of a window: the history and its target.", ge=2)
    windows: Literal["last", "all"] = knob("last", "Windows of each train line that get a trace: last or all.")
    images: Literal["on", "off"] = knob(
        "on", "Send the history's images to the model, and captions then only with --captions on; profile sees none."
    )


class RefineSettings(WriterSettings):
    """Have a reasoning model rewrite the first chains of thought as four checked steps."""

    verb: ClassVar[str] = "refine"

    model: str = knob("", f"Model folder, hub id, or the name an endpoint serves (there: {REFINER} unless given).")
    temperature: float = knob(0.1, "Sampling temperature of the writer; 0 is greedy.", ge=0)
    max_new_tokens: int = knob(4096, "Longest text, in tokens, hidden reasoning included.", ge=8)
    answer_conditioned: bool = knob(
        False, "Show the target to the writer, as the published method's code does; every record is marked so."
    )

    @model_validator(mode="before")
    @classmethod
    def _default_refiner(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("backend") == "endpoint" and not values.get("model"):
            return values | {"model": REFINER}
        return values

    @model_validator(mode="after")
    def _profile_takes_no_target(self) -> Self:
        if self.answer_conditioned and self.backend == "profile":
            raise ValueError("answer_conditioned: profile can't be shown a target; choose another --backend")
        return self


class AssessSettings(LongStageSettings):
    """Score every chain of thought for trust, reject those that leak, keep the best.

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
