"""Settings of `mllmrec run` and `mllmrec demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import model_validator

from mllmrec.settings.base import StageSettings, knob
from mllmrec.settings.data import PrepareSettings, Source

RAW = (
    "source",
    "raw",
    "user_column",
    "item_column",
    "time_column",
    "title_column",
    "titles",
    "rating_column",
    "min_rating",
)
"""Flags of `prepare` that `run own` takes too."""


def as_prepare(name: str) -> Any:
    """The knob of `prepare` with this name, for `run own --raw`."""
    field = PrepareSettings.model_fields[name]
    return knob(field.default, f"own, with --raw: {(field.description or '').removeprefix('pairs: ')}")


class RunRecipeSettings(StageSettings):
    """Run a recipe's stages in order, skipping the finished ones."""

    verb: ClassVar[str] = "run"

    recipe: str = knob(
        ...,
        "A recipe by path, or the name of a shipped one: own (data of your own, its settings computed from the data), "
        "movielens, microlens, netflix, movielens-cpu.",
        positional=True,
    )
    dataset: str = knob("", "Dataset, in place of the recipe's own.")
    ladder: bool = knob(
        False, "Train SFT and GRPO both without and with chains of thought, and report what each stage brings."
    )
    lanes: int = knob(
        1,
        "Stages at a time, where none waits for another; each takes its own memory, and its share of the cores.",
        ge=1,
        operational=True,
    )
    size: Literal["cpu", "gpu"] = knob(
        "cpu", "own: the small backbone that comes with the package, all weights, or --backbone with LoRA on a GPU."
    )
    backbone: str = knob(
        "", "own: model folder under the root, any path, or hub id to fetch; with --size gpu by default Qwen/Qwen3-4B."
    )
    raw: str = knob("", "own: raw file or folder, which is prepared first with a window that keeps most users.")
    source: Source = knob("pairs", "own, with --raw: which files it holds, as for prepare.")
    user_column: str = as_prepare("user_column")
    item_column: str = as_prepare("item_column")
    time_column: str = as_prepare("time_column")
    title_column: str = as_prepare("title_column")
    titles: str = as_prepare("titles")
    rating_column: str = as_prepare("rating_column")
    min_rating: float | None = as_prepare("min_rating")

    def prepare_flags(self) -> dict[str, Any]:
        """The flags of `prepare` among these."""
        return {name: getattr(self, name) for name in RAW}

    @model_validator(mode="after")
    def _own_alone_is_computed(self) -> Self:
        fields = type(self).model_fields
        given = [name for name in ("size", "backbone", *RAW) if getattr(self, name) != fields[name].default]
        if given and self.recipe != "own":
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise ValueError(f"{flags}: only the recipe own takes them, and {self.recipe} has its settings in its file")
        if not self.raw and (columns := [name for name in given if name in RAW]):
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in columns)
            raise ValueError(f"{flags}: they describe raw files; expected --raw beside them")
        if self.ladder and self.recipe == "own":
            raise ValueError("ladder with own: it has no chains of thought; expected a recipe that writes them")
        return self


class DemoSettings(StageSettings):
    """Run the whole pipeline on a small made-up world, with the backbone that comes with the package."""

    verb: ClassVar[str] = "demo"

    out: str = knob("demo-workspace", "Folder of the demo's workspace, under the root or any path.")
    size: Literal["s", "m", "l"] = knob("m", "Items and users: s 240 and 500, m 400 and 1,500, l 800 and 6,000.")
    rollouts: Literal["generate", "candidates", "exact"] = knob(
        "exact", "Where GRPO's answers come from: generate, candidates or exact, as for grpo."
    )
    seed: int = knob(42, "Seed of the made-up world, and of all that is drawn in it.")
    lanes: int = knob(2, "Stages at a time, each on one core.", ge=1, operational=True)
    serve: bool = knob(
        False, "Then serve its models, with a page to look at them (extra serve), until Ctrl-C.", operational=True
    )
    title_share: float | None = knob(
        None, "Share of the choices that follow places, which titles tell; none: the world's own.", ge=0, lt=1
    )
    poster_share: float | None = knob(None, "Share that follows tints, which posters alone tell.", ge=0, lt=1)
    order_share: float | None = knob(None, "Share that follows the kind of the last choice.", ge=0, lt=1)
    popular_share: float | None = knob(None, "Share that follows what many choose.", ge=0, lt=1)

    @property
    def folder(self) -> Path:
        """The demo's workspace."""
        return Path(self.root).expanduser() / self.out
