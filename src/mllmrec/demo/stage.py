"""`mllmrec demo`: the whole pipeline on a made-up world, with the backbone that comes with the package.

The demo supplies what a user would bring: two raw tables, posters, a model folder and a recipe. The stages are those of
`mllmrec run` with a 4B model. Because the law of the made-up world is known, the metrics of the best possible ranking
of the same candidate lists are computed as well.
"""

from __future__ import annotations

import dataclasses
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mllmrec.demo.habits import write_world
from mllmrec.demo.world import KINDS, PLACES, SIZES, World
from mllmrec.errors import ArtifactError
from mllmrec.pipeline.own import install_small_backbone, without_missing_baselines
from mllmrec.pipeline.recipe import Recipe, load_recipe
from mllmrec.pipeline.stage import command_of, cores, run_stages
from mllmrec.records import Summary
from mllmrec.settings.data import CandidatesSettings
from mllmrec.settings.pipeline import DemoSettings
from mllmrec.stages import Run, entry_point
from mllmrec.storage.workspace import Workspace, read_json, write_json

SHARES = ("title", "poster", "order", "popular")
TRAINED_ON = {"s": 0.5, "m": 1.0, "l": 2.0}
"""The number of training examples of each size, as a multiple of the recipe's."""
SECONDS = {
    "caption": 3,
    "pseudo-cot": 5,
    "candidates": 2,
    "baselines": 13,
    "sft fold-1": 23,
    "sft fold-2": 21,
    "assess": 22,
    "sft sft-adapters": 51,
    "sft sft-captions-adapters": 89,
    "grpo grpo": 64,
    "evaluate": 28,
    "evaluate grpo 1/2": 17,
    "evaluate grpo 2/2": 17,
    "probe grpo": 9,
    "report": 5,
}
"""Seconds that stages take, two at a time on two cores, for the estimate of the time left; other stages take one."""
PROBE_WIDTH, PROBE_STEPS, PROBE_WORDS = 64, 8_000, 500
PROBE_SECONDS = 1.1
"""What `measured_pace` does, and the seconds that it takes where `SECONDS` was measured, with nothing beside it."""


def run_demo(settings: DemoSettings) -> Summary:
    """Write the made-up world, its posters and the backbone into a folder, and run the demo's recipe there.

    Each stage computes on one thread, so what it makes doesn't depend on how many cores there are.
    """
    from mllmrec.demo.posters import write_posters

    workspace, recipe = Workspace(settings.folder), demo_recipe(settings)
    world, raw, dataset = world_of(settings), workspace.root / "raw", recipe.shared["dataset"]
    refuse_other_world(world, raw / "world.json", replacing=settings.overwrite)
    write_world(world, raw)
    write_posters(world, workspace.dataset(dataset).images, again=settings.overwrite)
    write_json(raw / "world.json", description(world))
    install_small_backbone(workspace.root / "backbone")
    recipe.blocks["prepare"][0] |= {"raw": str(raw), "titles": str(raw / "titles.csv")}
    overrides: dict[str, Any] = {"root": str(workspace.root), "seed": settings.seed, "overwrite": settings.overwrite}
    return run_stages(
        recipe.stages(**overrides),
        command_of(settings),
        entry=partial(with_ceiling, world),
        usual={name: seconds * TRAINED_ON[settings.size] for name, seconds in SECONDS.items()},
        pace=measured_pace(),
        lanes=min(settings.lanes, cores()),
        threads=1,
    )


def measured_pace() -> float:
    """How much longer this machine takes, as busy as it is, than the one that `SECONDS` was measured on.

    Some products of small matrices and some plain Python, which stages spend their time with, are timed for about a
    second of elapsed time. The matrices are too small to be shared out to several cores.
    """
    matrix = np.random.default_rng(0).standard_normal((PROBE_WIDTH, PROBE_WIDTH), dtype=np.float32) / PROBE_WIDTH
    began, product, words = time.perf_counter(), matrix, dict[str, int]()
    for step in range(PROBE_STEPS):
        product = np.tanh(product @ matrix + matrix)
        for word in range(PROBE_WORDS):
            words[str(word)] = step
    return (time.perf_counter() - began) / PROBE_SECONDS


def world_of(settings: DemoSettings) -> World:
    """The world of this size, with the shares that were asked for."""
    shares = {name: share for name in SHARES if (share := getattr(settings, f"{name}_share")) is not None}
    return dataclasses.replace(SIZES[settings.size], seed=settings.seed, **shares)


def demo_recipe(settings: DemoSettings) -> Recipe:
    """The demo's recipe for one size and one kind of rollouts, without ItemKNN where its library isn't installed."""
    recipe = load_recipe("demo")
    for verb in ("scorers", "sft", "grpo"):
        for block in recipe.blocks[verb]:
            block["limit"] = round(block["limit"] * TRAINED_ON[settings.size])
    recipe.blocks["grpo"][0]["rollouts"] = settings.rollouts
    without_missing_baselines(recipe)
    return recipe


def description(world: World) -> dict[str, Any]:
    """All that determines a world's files, for JSON: its settings, and the words of its titles."""
    words = {"places": " ".join(PLACES), "kinds": " ".join(KINDS)}
    return dataclasses.asdict(world) | {"length": list(world.length)} | words


def refuse_other_world(world: World, path: Path, *, replacing: bool) -> None:
    """Raise ArtifactError where `path`, the description of a world, is there and describes another one."""
    if replacing or not path.exists():
        return
    before, now = read_json(path), description(world)
    pairs = {name: (before.get(name, "not told"), value) for name, value in now.items()}
    changed = [f"{name} {there} there, {here} now" for name, (there, here) in pairs.items() if there != here]
    if changed:
        raise ArtifactError(
            f"{path.parent.parent} holds another made-up world ({'; '.join(changed)}). Choose another --out, or "
            "replace it with --overwrite."
        )


def with_ceiling(world: World, verb: str) -> Run:
    """The `run` of a verb; `candidates` also writes the ceiling, the metrics of the best possible ranking."""
    run = entry_point(verb)
    if verb != "candidates":
        return run

    def freeze_and_write(settings: CandidatesSettings, workspace: Workspace) -> Summary:
        from mllmrec.demo.oracle import write_ceiling

        summary = run(settings, workspace)
        assert summary.artifact is not None, "the stage candidates names its file"
        write_ceiling(world, workspace.dataset(settings.dataset), summary.artifact)
        return summary

    return freeze_and_write
