"""`mllmrec run own`: a recipe whose window, prompts and numbers of examples follow from the data.

What is the same for all data stands in the recipes own (a processor) and own-gpu. The rest is computed from the data
card, `settings_for`; raw files are prepared first, with the widest window that keeps most users.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from mllmrec.data.model_folders import lacking
from mllmrec.data.sequences import read_catalogue
from mllmrec.errors import ArtifactError, BackendError, SettingsError, install_command
from mllmrec.pipeline.recipe import Recipe, load_recipe
from mllmrec.progress import note
from mllmrec.settings.base import validated
from mllmrec.settings.data import PrepareSettings
from mllmrec.settings.pipeline import RunRecipeSettings
from mllmrec.settings.resources import FetchBackboneSettings
from mllmrec.stages import STAGES, entry_point
from mllmrec.storage.workspace import DatasetFiles, Workspace, read_json, sha256

OWN = "own"
RECIPES = {"cpu": OWN, "gpu": "own-gpu"}
SMALL, LARGE = "small-backbone", "Qwen/Qwen3-4B"
"""The folder that the package's own backbone is copied to, and the hub id of the backbone for a GPU."""
SHIPPED = Path(str(resources.files("mllmrec") / "demo" / "backbone"))
EXTRA = "itemknn"
CARD = "README.md"

PASSES = {"cpu": 3_600, "gpu": 16_000}
"""Windows that fine-tuning reads, each one as often as it comes: minutes on one core, about an hour on a GPU."""
MOST_EPOCHS = 3
ALIGNED = {"cpu": 960, "gpu": 2_000}
"""The most windows that GRPO is given."""
QUESTION, MARKS, NUM_CANDIDATES, CONTEXT = 128, 16, 10, 8_000
"""Tokens for the question, and for what stands around each item; candidates; and the most that a prompt may hold."""
WIDEST = 10
"""The widest window, that of the published settings."""


@dataclass(frozen=True, kw_only=True)
class Computed:
    """What follows from the data: items of a window, epochs and examples (None: all) of SFT, examples of GRPO, and the
    budget of a prompt to the small backbone.
    """

    window: int
    epochs: int
    limit: int | None
    aligned: int
    max_prompt_tokens: int


def settings_for(facts: Mapping[str, Any], size: str, item_bytes: int) -> Computed:
    """The settings for the data that a card describes, whose longest id and title together take `item_bytes`.

    A token is at least one byte, so that no item of history or candidates is left out before the context is full.

    >>> facts = {"window": 7, "splits": {"train": {"lines": 600, "lengths": {"mean": 7.96, "median": 8}}}}
    >>> settings_for(facts, "cpu", item_bytes=20)
    Computed(window=7, epochs=3, limit=None, aligned=960, max_prompt_tokens=704)
    """
    lines, lengths = facts["splits"]["train"]["lines"], facts["splits"]["train"]["lengths"]
    window = int(facts["window"])
    windows = max(1, round(lines * max(1.0, lengths["mean"] - window + 1)))
    passes = PASSES[size]
    return Computed(
        window=window,
        epochs=min(MOST_EPOCHS, max(1, passes // windows)),
        limit=passes if windows > passes else None,
        aligned=min(windows, ALIGNED[size]),
        max_prompt_tokens=min(CONTEXT, QUESTION + (MARKS + item_bytes) * (window - 1 + NUM_CANDIDATES)),
    )


def own_recipe(settings: RunRecipeSettings, workspace: Workspace) -> Recipe:
    """The recipe for one dataset, which is prepared and whose backbone is there when this returns.

    Raises SettingsError without a dataset, or where neither a prepared dataset nor raw files are named, and
    BackendError where the backbone for a GPU is neither here nor to be had.
    """
    if not settings.dataset:
        raise SettingsError("`mllmrec run own` works on data of your own: name it, as in --dataset shop.")
    facts = _prepared(settings, workspace)
    catalogue = read_catalogue(workspace.dataset(settings.dataset).titles)
    item_bytes = max(len(f"{item_id}{item.title}".encode()) for item_id, item in catalogue.items())
    recipe, computed = load_recipe(RECIPES[settings.size]), settings_for(facts, settings.size, item_bytes)
    backbone = _backbone(settings, workspace)
    for verb, blocks in recipe.blocks.items():
        fields = STAGES[verb].settings.model_fields
        for block in blocks:
            block |= {"min_inter": computed.window} if "min_inter" in fields else {}
            block |= {"backbone": backbone} if "backbone" in block else {}
            if settings.size == "cpu" and "max_prompt_tokens" in fields:
                block["max_prompt_tokens"] = computed.max_prompt_tokens
    recipe.blocks["sft"][0] |= {"epochs": computed.epochs, "limit": computed.limit}
    recipe.blocks["grpo"][0] |= {"limit": computed.aligned, "limit_from": "last"}
    without_missing_baselines(recipe)
    return recipe


def without_missing_baselines(recipe: Recipe) -> None:
    """Take item kNN out of a recipe's baselines where its library isn't installed, with a note."""
    names = recipe.blocks["baselines"][0]["names"]
    if EXTRA in names and importlib.util.find_spec("rectools") is None:
        names.remove(EXTRA)
        note(f"{EXTRA} is left out of the baselines: it needs `{install_command('baselines')}`.")


def install_small_backbone(folder: Path) -> Path:
    """Copy the backbone that comes with the package to `folder`; one that lies there already stays.

    Raises ArtifactError when another model is in its place.
    """
    for source in sorted(path for path in SHIPPED.iterdir() if path.is_file()):
        copy = folder / source.name
        if not copy.exists():
            folder.mkdir(parents=True, exist_ok=True)
            fresh = copy.with_name(f".{copy.name}.new")
            shutil.copyfile(source, fresh)
            fresh.replace(copy)
        elif source.name != CARD and sha256(copy) != sha256(source):
            raise ArtifactError(
                f"{copy} is not the file that comes with the package: {folder} holds another model. Move it away, or "
                "choose another folder."
            )
    return folder


def _prepared(settings: RunRecipeSettings, workspace: Workspace) -> dict[str, Any]:
    """The data card, of raw files after they were prepared."""
    files = workspace.dataset(settings.dataset)
    if settings.raw:
        from mllmrec.data.prepare import usual_window

        asked = settings.prepare_flags() | {"dataset": settings.dataset, "root": str(workspace.root)}
        asked |= {"overwrite": settings.overwrite, "min_inter": WIDEST}
        prepare = validated(PrepareSettings, asked, "run own")
        prepare = prepare.model_copy(update={"min_inter": usual_window(prepare)})
        summary = entry_point("prepare")(prepare, workspace)
        note("\n".join((summary.headline, *summary.warnings)))
    elif not files.split("train").exists():
        raise SettingsError(
            f"{files.split('train')} isn't there: the data has to be prepared first. Name the raw table and its "
            f"columns here, as in `mllmrec run own --dataset {settings.dataset} --raw interactions.csv --user-column "
            "user --item-column item --time-column timestamp --title-column title`, or run `mllmrec prepare`, which "
            "reads other files too."
        )
    return _card(files)


def _card(files: DatasetFiles) -> dict[str, Any]:
    """The card of a dataset, or that of files which `prepare` didn't make, with a window that half of them fill."""
    if files.card.exists():
        facts: dict[str, Any] = read_json(files.card)
        return facts
    from mllmrec.data.card import card

    facts = card(files)
    median = int(facts["splits"]["train"]["lengths"]["median"])
    return facts | {"window": max(2, min(WIDEST, median))}


def _backbone(settings: RunRecipeSettings, workspace: Workspace) -> str:
    """The name under the root of the backbone, which is copied or fetched where it isn't there."""
    if settings.size == "cpu" and not settings.backbone:
        return install_small_backbone(workspace.root / SMALL).name
    model_id = settings.backbone or LARGE
    name = model_id.rstrip("/").rsplit("/", 1)[-1]
    for given in (model_id, name):
        folder = workspace.model(given)
        if folder is not None and not lacking(folder):
            return given
    from mllmrec.data.fetching.stage import run_backbone

    try:
        note(run_backbone(FetchBackboneSettings(id=model_id, root=str(workspace.root)), workspace).headline)
    except BackendError as error:
        raise BackendError(
            f"The backbone {model_id} is no model folder under {workspace.root}, and fetching it failed: {error} A "
            f"folder {name} that was fetched elsewhere (`mllmrec fetch backbone {model_id}`) may be copied there; "
            "without one, `--size cpu` takes the small backbone that comes with the package."
        ) from error
    return name
