"""Settings of `mllmrec run` and `mllmrec demo`."""

from __future__ import annotations

from typing import ClassVar

from mllmrec.settings.base import StageSettings, knob


class RunRecipeSettings(StageSettings):
    """Run a recipe's stages in order, skipping the finished ones."""

    verb: ClassVar[str] = "run"

    recipe: str = knob(
        ..., "A recipe by path, or the name of a shipped one: movielens, microlens, netflix.", positional=True
    )
    dataset: str = knob("", "Dataset, in place of the recipe's own.")
    ladder: bool = knob(
        False, "Train SFT and GRPO both without and with chains of thought, and tell what each stage brings."
    )


class DemoSettings(StageSettings):
    """Run the whole pipeline on a small made-up dataset, with a backbone made on the spot."""

    verb: ClassVar[str] = "demo"

    out: str = knob("demo-workspace", "Folder of the demo's workspace, under the root or any path.")
    seed: int = knob(42, "Seed of the made-up world.")
