"""Settings of `mllmrec pseudo-cot` and `mllmrec refine`: who writes the traces, and what is shown to the writer."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import model_validator

from mllmrec.settings.base import knob
from mllmrec.settings.long import TeacherSettings

REFINER = "deepseek-r1-0528"
PROFILE_KNOWS = ("dataset", "backend", "captions", "seed", "min_inter", "windows")


class WriterSettings(TeacherSettings):
    """What both stages share: the writer, and whether it sees captions."""

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
    """Write a first chain of thought about the history of every training example."""

    verb: ClassVar[str] = "pseudo-cot"

    min_inter: int = knob(10, "Items of a window: the history and its target.", ge=2)
    windows: Literal["last", "all"] = knob("last", "Windows of each train line that get a trace: last or all.")
    images: Literal["on", "off"] = knob(
        "on", "Send the history's images to the model, and captions then only with --captions on; profile sees none."
    )


class RefineSettings(WriterSettings):
    """Have a reasoning model rewrite the drafts of pseudo-cot as four checked steps."""

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
