"""Another K changes what is told of a RUN and never what was ranked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from handmade import WriteRun, as_baseline

from mllmrec.errors import ArtifactError
from mllmrec.evaluation.ranking import cutoffs
from mllmrec.evaluation.ranking.cutoffs import finished_run
from mllmrec.evaluation.ranking.runs import candidate_file
from mllmrec.settings.base import validated
from mllmrec.settings.evaluation import BaselinesSettings, RunSettings
from mllmrec.storage.workspace import Workspace, read_json, sha256, write_json


@pytest.fixture
def shop_settings(shop_settings: RunSettings) -> BaselinesSettings:
    return as_baseline(shop_settings)


@pytest.fixture
def inputs(shop: Workspace, shop_settings: RunSettings) -> dict[str, str]:
    return {"candidates": sha256(candidate_file(shop_settings, shop))}


@pytest.fixture
def other(shop_settings: RunSettings) -> RunSettings:
    """The same work told at one and two."""
    return validated(BaselinesSettings, shop_settings.model_dump() | {"top_k": "1,2"}, "test")


def content(folder: Path) -> dict[str, bytes]:
    """All files but the manifest, which tells when."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}


def test_a_finished_run_keeps_its_cut_offs_beside_others_as_if_made_with_all(
    make_run: WriteRun, other: RunSettings, inputs: dict[str, str]
) -> None:
    folder = make_run().folder
    before = content(folder)
    ranked = read_json(folder / "manifest.json")
    told = finished_run(folder, other, inputs)
    ours = content(folder)
    assert told is not None
    assert told.facts == read_json(folder / "metrics.json")
    manifest = read_json(folder / "manifest.json")
    assert manifest["settings"]["top_k"] == manifest["result_settings"]["top_k"] == [1, 2, 3, 5, 10]
    assert {name: ours[name] for name in before if name.endswith(".csv")} == {
        name: own for name, own in before.items() if name.endswith(".csv")
    }
    assert (manifest["counts"], manifest["seconds"]) == (ranked["counts"], ranked["seconds"])
    everything = other.model_copy(update={"top_k": (1, 2, 3, 5, 10)})
    assert make_run(settings=everything).folder == folder
    assert ours == content(folder)
    assert finished_run(folder, other, inputs) is not None
    assert ours == content(folder)


def test_the_same_cut_offs_touch_nothing(
    make_run: WriteRun, shop_settings: RunSettings, inputs: dict[str, str]
) -> None:
    folder = make_run().folder
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert finished_run(folder, shop_settings, inputs) is not None
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_what_was_cut_off_half_way_is_told_again(
    make_run: WriteRun,
    shop_settings: RunSettings,
    other: RunSettings,
    inputs: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed between metrics.json and the CSV files: whichever K is asked for next, all files agree."""
    folder = make_run().folder
    whole = content(folder)
    with monkeypatch.context() as patched:
        patched.setattr(cutoffs, "write_reference_files", None)
        with pytest.raises(TypeError):
            finished_run(folder, other, inputs)
    assert finished_run(folder, shop_settings, inputs) is not None
    assert content(folder) == whole


def test_only_the_first_process_of_a_launch_writes(
    make_run: WriteRun, other: RunSettings, inputs: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run().folder
    before = content(folder)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert finished_run(folder, other, inputs) is not None
    assert content(folder) == before


def test_a_run_made_in_another_way_is_refused_at_any_cut_off(
    make_run: WriteRun, other: RunSettings, inputs: dict[str, str]
) -> None:
    folder = make_run().folder
    assert finished_run(folder, other.model_copy(update={"overwrite": True}), inputs) is None
    with pytest.raises(ArtifactError, match="setting seed was 42 and is now 7"):
        finished_run(folder, other.model_copy(update={"seed": 7}), inputs)
    with pytest.raises(ArtifactError, match="the input candidates has changed since"):
        finished_run(folder, other, {"candidates": "0"})


def test_as_many_generated_answers_are_told_at_smaller_cut_offs(
    make_run: WriteRun, other: RunSettings, inputs: dict[str, str]
) -> None:
    """Two answers were asked for: K = 2 alone is there already, K = 1 alone would be another search."""
    folder = make_run(settings=other).folder
    two, one = (other.model_copy(update={"top_k": (k,)}) for k in (2, 1))
    run = finished_run(folder, two, inputs, answers=2)
    assert run is not None
    assert list(run.facts["metrics"]) == ["HR@1", "HR@2", "NDCG@2", "MRR"]
    with pytest.raises(ArtifactError, match=r"setting top_k was \[1, 2\] and is now \[1\]"):
        finished_run(folder, one, inputs, answers=1)


def tell_of_run(folder: Path, facts: Mapping[str, Any]) -> None:
    """Put other facts into a RUN whose manifest, as those of earlier versions, vouches for no file."""
    write_json(folder / "metrics.json", facts)
    write_json(folder / "manifest.json", read_json(folder / "manifest.json") | {"outputs": {}})


def test_altered_rankings_are_refused_and_altered_reference_files_written_again(
    make_run: WriteRun, other: RunSettings, inputs: dict[str, str]
) -> None:
    folder = make_run().folder
    csv = next(folder.glob("*_top*.csv"))
    before = csv.read_bytes()
    csv.write_bytes(before + b"more\n")
    plain = other.model_copy(update={"top_k": tuple(read_json(folder / "metrics.json")["top_k"])})
    assert finished_run(folder, plain, inputs) is not None
    assert csv.read_bytes() == before
    (folder / "metrics.json").write_text((folder / "metrics.json").read_text().replace('"hand"', '"HAND"'))
    with pytest.raises(ArtifactError, match=r"metrics\.json was altered"):
        finished_run(folder, plain, inputs)
    (folder / "metrics.json").write_text((folder / "metrics.json").read_text().replace('"HAND"', '"hand"'))
    assert finished_run(folder, plain, inputs) is not None
    (folder / "rankings.jsonl").unlink()
    with pytest.raises(ArtifactError, match=r"rankings\.jsonl is gone.*--overwrite"):
        finished_run(folder, plain, inputs)


def test_length_normalised_figures_follow_from_their_places(
    make_run: WriteRun, other: RunSettings, inputs: dict[str, str]
) -> None:
    """Two targets came first and one second of three: HR@1 is 2/3 and HR@2 is 1."""
    folder = make_run().folder
    facts = read_json(folder / "metrics.json")
    kept = {"length_normalised": {"HR@1": 0.5}, "length_normalised_places": [[0, 0, 3, 2], [1, 0, 3, 1]]}
    tell_of_run(folder, facts | kept)
    run = finished_run(folder, other, inputs)
    assert run is not None
    assert run.facts["length_normalised"]["HR@1"] == pytest.approx(2 / 3, abs=1e-6)
    assert run.facts["length_normalised"]["HR@2"] == 1
    del kept["length_normalised_places"]
    tell_of_run(folder, facts | kept)
    again = finished_run(folder, other, inputs)
    assert again is not None
    assert again.facts["length_normalised"] == {"HR@1": 0.5}
