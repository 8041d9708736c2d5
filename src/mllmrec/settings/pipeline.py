"""Settings of `mllmrec run` and `mllmrec demo`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from mllmrec.settings.base import StageSettings, knob


class RunRecipeSettings(StageSettings):
    """Run a recipe's stages in order, skipping the finished ones."""

    verb: ClassVar[str] = "run"

    recipe: str = knob(
        ...,
        "A recipe by path, or the name of a shipped one: movielens, microlens, netflix, movielens-cpu.",
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
