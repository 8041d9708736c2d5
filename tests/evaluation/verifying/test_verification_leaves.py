"""Every value of a RUN's files changed, removed or of another kind: each is found, or is excused here by its name."""

from __future__ import annotations

import copy
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from handmade import SCORES, TARGETS, WriteRun, example_of

from mllmrec.errors import MllmrecError
from mllmrec.evaluation.metrics import Position
from mllmrec.evaluation.ranking.cutoffs import normalised
from mllmrec.evaluation.ranking.rankings import ranking_of
from mllmrec.evaluation.ranking.runs import candidate_file, run_folder, write_run
from mllmrec.evaluation.verifying import stage as verification
from mllmrec.settings.evaluation import EvaluateSettings, RunSettings, VerifySettings
from mllmrec.storage.manifests import Manifest, vouched, write_sealed
from mllmrec.storage.workspace import Workspace, read_json, read_jsonl, sha256, write_json, write_jsonl

Leaf = tuple[str | int, ...]
NOTES = {"fit_seconds", "budget", "model", "adapter"}
"""Of metrics.json, what the verb notes of its own work and no ranking shows: found by the file's hash alone."""
SAME_SIDE = "scores"
"""Of a ranking, a score that stays on its side of the target's moves no figure: found by the file's hash alone."""


@pytest.fixture
def folder(shop: Workspace, shop_settings: RunSettings) -> Path:
    """A RUN of a model with all that metrics.json may hold: a slice and length-normalised metrics."""
    settings = EvaluateSettings(
        dataset="shop", root=str(shop.root), num_neg=3, min_inter=3, top_k=(1, 3), limit=3, backbone="tiny"
    )
    chosen = ["1", "2", "3", "4"]
    candidates = candidate_file(settings, shop)
    chosen = [example.user_id for example in verification_examples(candidates, settings)]
    positions = [Position(0, 1, 4), Position(2, 0, 4), Position(1, 1, 4)]
    run = write_run(
        run_folder(settings, shop, "tiny", candidates),
        [ranking_of(example_of(user, TARGETS[user]), SCORES[user]) for user in chosen],
        settings,
        name="tiny",
        candidates=candidates,
        inputs={"candidates": sha256(candidates), "model": "org/tiny", "template": "2026-1"},
        started=time.monotonic(),
        seconds=2.0,
        num_lists=len(TARGETS),
        details={"model": "org/tiny", "adapter": None, "budget": {}} | normalised(positions, settings.top_k),
    )
    assert verified(run.folder)
    return run.folder


def verification_examples(candidates: Path, settings: RunSettings) -> list[Any]:
    from mllmrec.data.candidates.drawing import read_candidates, sliced

    return sliced(read_candidates(candidates), settings.limit, settings.seed)


def verified(folder: Path) -> bool:
    """Whether the command finds nothing; a refusal in words counts as a finding."""
    try:
        return verification.run(VerifySettings(runs=(str(folder),)), Workspace(".")).passed
    except MllmrecError:
        return False


def leaves(value: Any, path: Leaf = ()) -> Iterator[Leaf]:
    """The paths of all values that hold no others; an empty list or object is one."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not inner or not value:
        yield path
    for key, each in inner:
        yield from leaves(each, (*path, key))


def changed(value: Any) -> Any:
    match value:
        case bool():
            return not value
        case int() | float():
            return value * 2 + 1
        case str():
            return f"{value}x"
        case None:
            return 1
        case dict():
            return {"x": 1}
        case _:
            return ["x"]


def of_another_kind(value: Any) -> Any:
    return 7 if isinstance(value, (str, dict, list)) else str(value)


EDITS: dict[str, Callable[[Any, Any], None]] = {
    "changed": lambda holder, key: holder.__setitem__(key, changed(holder[key])),
    "mistyped": lambda holder, key: holder.__setitem__(key, of_another_kind(holder[key])),
    "removed": lambda holder, key: holder.pop(key),
}


def edited(value: Any, leaf: Leaf, edit: str) -> Any:
    """A copy of `value` with one leaf changed."""
    value = copy.deepcopy(value)
    holder = value
    for key in leaf[:-1]:
        holder = holder[key]
    EDITS[edit](holder, leaf[-1])
    return value


def resealed(folder: Path) -> None:
    """Let the manifest vouch for the files as they are now, as a careful forger would."""
    manifest = Manifest.read(folder)
    assert manifest is not None
    manifest.outputs = vouched(folder, [folder / name for name in manifest.outputs])
    write_sealed(folder, manifest)


EVERY = pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.slow), 12], ids=["all", "a twelfth"])
"""All leaves in the slow tier, in the fast one each twelfth."""


@EVERY
@pytest.mark.parametrize("edit", EDITS)
def test_every_value_of_metrics_is_found(folder: Path, edit: str, every: int) -> None:
    """By the figures alone: the manifest vouches for the file as it was edited."""
    path = folder / "metrics.json"
    before = read_json(path)
    passed = set()
    for leaf in [*leaves(before)][::every]:
        write_json(path, edited(before, leaf, edit))
        resealed(folder)
        passed |= {leaf[0]} if verified(folder) else set()
    assert passed <= NOTES


@EVERY
@pytest.mark.parametrize("edit", EDITS)
def test_every_value_of_the_manifest_is_found(folder: Path, edit: str, every: int) -> None:
    """By its seal where nothing else tells. An empty object says as much as none."""
    path = folder / "manifest.json"
    before = read_json(path)
    for leaf in [*leaves(before)][::every]:
        write_json(path, edited(before, leaf, edit))
        assert not verified(folder) or (edit, leaf) == ("removed", ("details",)), leaf


@EVERY
@pytest.mark.parametrize("edit", EDITS)
def test_every_value_of_a_ranking_is_found(folder: Path, edit: str, every: int) -> None:
    """By the line alone: the manifest vouches for the file as it was edited."""
    path = folder / "rankings.jsonl"
    rows = list(read_jsonl(path))
    passed = set()
    for leaf in [*leaves(rows[0])][::every]:
        write_jsonl(path, [edited(rows[0], leaf, edit), *rows[1:]])
        resealed(folder)
        passed |= {leaf[0]} if verified(folder) else set()
    assert passed <= {SAME_SIDE}
    assert not passed or edit == "changed"


@pytest.mark.parametrize("name", ["metrics.json", "rankings.jsonl", "tiny_shop_top3.csv", "tiny_shop_top3.json"])
def test_a_file_is_held_to_the_bytes_that_were_written(folder: Path, name: str) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes().replace(b"\n", b" \n", 1))
    assert not verified(folder)
    resealed(folder)
    assert verified(folder) == (name != "tiny_shop_top3.csv")


def test_scores_of_negatives_that_were_swapped_are_found(make_run: WriteRun) -> None:
    """No figure moves: the hash of the file tells."""
    folder = make_run().folder
    path = folder / "rankings.jsonl"
    rows = list(read_jsonl(path))
    row = next(row for row in rows if row["user_id"] == "1")
    row["scores"][2], row["scores"][3] = row["scores"][3], row["scores"][2]
    write_jsonl(path, rows)
    assert not verified(folder)


def test_whole_files_that_were_swapped_are_found(folder: Path, make_run: WriteRun, tmp_path: Path) -> None:
    other = make_run("other", {user: scores[::-1] for user, scores in SCORES.items()}).folder
    names = sorted(path.name for path in folder.iterdir())
    assert {"manifest.json", "metrics.json", "rankings.jsonl", "tiny_shop_top1.csv"} <= set(names)
    for name in names:
        foreign = other / name.replace("tiny_", "other_").replace("top1", "top3")
        assert foreign.exists()
        shutil.copy2(folder / name, tmp_path / "kept")
        shutil.copy2(foreign, folder / name)
        assert not verified(folder), name
        (folder / name).unlink()
        assert not verified(folder), f"{name} is gone"
        shutil.copy2(tmp_path / "kept", folder / name)
    assert verified(folder)
