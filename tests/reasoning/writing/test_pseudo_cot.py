"""The stage that drafts traces: which windows, what is asked, what is written, and how it goes on."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shelves import DATASET, WINDOW, ScriptedTeacher, captions, catalogue, draft_of, items, lines, make_shop

from mllmrec.data.candidates.drawing import questions
from mllmrec.data.sequences import Interactions, is_held_out
from mllmrec.data.traces import TraceJoin
from mllmrec.errors import ArtifactError, BackendError, SettingsError
from mllmrec.models.base import Picture
from mllmrec.reasoning.writing.pseudo_cot import DraftRequests, run
from mllmrec.records import Summary
from mllmrec.settings.base import validated
from mllmrec.settings.texts import PseudoCotSettings
from mllmrec.storage.manifests import Manifest
from mllmrec.storage.workspace import Workspace, partial, read_json

TRAIN = lines()


def chosen(workspace: Workspace, **knobs: Any) -> PseudoCotSettings:
    return PseudoCotSettings(dataset=DATASET, root=str(workspace.root), **({"min_inter": WINDOW} | knobs))


def asked(workspace: Workspace, teacher: ScriptedTeacher, **knobs: Any) -> Summary:
    model = {"backend": "endpoint", "model": "served", "max_failure_share": 1.0}
    return run(chosen(workspace, **(model | knobs)), workspace, teacher=teacher)


def written(workspace: Workspace) -> list[dict[str, Any]]:
    return list(read_json(workspace.dataset(DATASET).pseudo_cot))


@pytest.mark.parametrize("mode", ["last", "all"])
def test_every_training_window_gets_a_record_that_joins(tmp_path: Path, mode: str) -> None:
    workspace = make_shop(tmp_path)
    summary = run(chosen(workspace, windows=mode), workspace)
    interactions = Interactions.load(workspace, DATASET)
    examples, _ = questions(interactions.training_lines(), "train", WINDOW, mode)
    records = written(workspace)
    assert [row["example_id"] for row in records] == [example.example_id for example in examples]
    assert len(records) == {"last": 24, "all": 72}[mode] == summary.facts["done"]
    joined = TraceJoin(workspace.dataset(DATASET).pseudo_cot, interactions)
    assert [trace.example_id for trace, _ in joined] == [example.example_id for example in examples]
    assert joined.counts == {"joined": len(records)}


def test_a_record_is_what_the_reasoning_files_hold(tmp_path: Path) -> None:
    workspace = make_shop(tmp_path)
    run(chosen(workspace), workspace)
    record = written(workspace)[3]
    user, basket = list(TRAIN.items())[3]
    named = [{"item_id": item, "title": catalogue().title(item)} for item in basket[-WINDOW:]]
    assert record.pop("reasoning").startswith("Step 1: ")
    assert len(record.pop("example_id")) == 16
    assert record == {
        "line_idx": 3,
        "user_id": user,
        "history_items": named[:-1],
        "target_item": named[-1],
        "writer": "profile",
        "answer_conditioned": False,
    }


def test_validation_users_and_short_lines_get_none_and_blank_lines_count_as_lines(tmp_path: Path) -> None:
    held_out = next(f"v{number}" for number in range(100) if is_held_out(f"v{number}"))
    short = next(f"s{number}" for number in range(100) if not is_held_out(f"s{number}"))
    workspace = make_shop(tmp_path, {held_out: TRAIN["visitor-0z"], short: ["100", "101"], **TRAIN})
    path = workspace.dataset(DATASET).split("train")
    path.write_text("\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    summary = run(chosen(workspace), workspace)
    assert {row["user_id"] for row in written(workspace)} == set(TRAIN)
    assert [row["line_idx"] for row in written(workspace)] == list(range(3, 27))
    assert summary.facts["too_short"] == 1


def test_profile_uses_captions_where_they_are_and_where_they_are_wanted(tmp_path: Path) -> None:
    texts = {}
    for name, knobs in {"auto": {}, "on": {"captions": "on"}, "off": {"captions": "off"}}.items():
        workspace = make_shop(tmp_path / name)
        run(chosen(workspace, **knobs), workspace)
        texts[name] = [row["reasoning"] for row in written(workspace)]
        manifest = Manifest.read(workspace.dataset(DATASET).pseudo_cot)
        assert manifest is not None
        assert ("captions" in manifest.inputs) == (name != "off")
    assert texts["auto"] == texts["on"] != texts["off"]
    assert "a picture described with" in texts["on"][0]


def test_a_text_model_is_shown_titles_and_captions_oldest_first(tmp_path: Path) -> None:
    workspace, teacher = make_shop(tmp_path), ScriptedTeacher(draft_of)
    asked(workspace, teacher)
    history = TRAIN["visitor-0z"][-WINDOW:-1]
    lines = teacher.texts[0].splitlines()
    assert lines[1:6] == [
        f"{number}. {catalogue().title(item)} | its image: {captions()[item]}" for number, item in enumerate(history, 1)
    ]
    assert written(workspace)[0]["writer"] == "scripted"
    assert written(workspace)[0]["reasoning"] == draft_of(teacher.asked[0])


def picture(item_id: str) -> Picture | None:
    """Items with an odd number have an image."""
    if int(item_id) % 2 == 0:
        return None
    return Picture(rgb=np.zeros((2, 2, 3), dtype=np.uint8), encoded=item_id.encode(), media_type="image/png")


def test_a_model_that_sees_is_sent_the_images_there_are_in_order(tmp_path: Path) -> None:
    workspace, teacher = make_shop(tmp_path, captioned=False), ScriptedTeacher(draft_of)
    settings = chosen(workspace, backend="huggingface", model="vl", limit=6)
    run(settings, workspace, load_picture=picture, teacher=teacher)
    for request, basket in zip(teacher.asked, TRAIN.values(), strict=False):
        seen = [item for item in basket[-WINDOW:-1] if int(item) % 2]
        assert [shown.encoded.decode() for shown in request.pictures] == seen
        for number, item in enumerate(seen, 1):
            assert f"{catalogue().title(item)} (picture {number})\n" in request.text


@pytest.mark.parametrize(
    ("knobs", "pictured", "described"),
    [({}, {1}, {0}), ({"captions": "on"}, {1}, {0, 1}), ({"images": "off"}, set(), {0, 1})],
    ids=("images, captions in their place", "images and captions", "captions"),
)
def test_captions_stand_in_for_images_unless_both_are_asked_for(
    tmp_path: Path, knobs: dict[str, Any], pictured: set[int], described: set[int]
) -> None:
    """Items with an odd number have an image, and all have a caption."""
    workspace, teacher = make_shop(tmp_path), ScriptedTeacher(draft_of)
    settings = chosen(workspace, backend="endpoint", model="vl", limit=8, **knobs)
    run(settings, workspace, load_picture=picture, teacher=teacher)
    for request, basket in zip(teacher.asked, TRAIN.values(), strict=False):
        history = [int(item) % 2 for item in basket[-WINDOW:-1]]
        assert len(request.pictures) == sum(odd in pictured for odd in history)
        assert request.text.count("its image: ") == sum(odd in described for odd in history)


def test_other_images_make_another_artifact_and_no_image_makes_none(tmp_path: Path) -> None:
    workspace, teacher = make_shop(tmp_path), ScriptedTeacher(draft_of)
    settings = chosen(workspace, backend="endpoint", model="vl", limit=2)
    run(settings, workspace, load_picture=picture, teacher=teacher, picture_version=str)
    again = run(settings, workspace, load_picture=picture, teacher=teacher, picture_version=str)
    assert again.headline.endswith("nothing to do.")
    with pytest.raises(ArtifactError, match="the input images has changed since"):
        run(settings, workspace, load_picture=picture, teacher=teacher, picture_version=lambda item: f"{item} mended")


def test_a_dry_run_tells_what_is_left(tmp_path: Path) -> None:
    workspace, teacher = make_shop(tmp_path), ScriptedTeacher(draft_of)
    run(chosen(workspace, backend="endpoint", model="vl", limit=2), workspace, teacher=teacher)
    told = run(chosen(workspace, backend="endpoint", model="vl", limit=5, dry_run=True), workspace)
    assert told.headline == "3 drafts would be written by vl."
    assert told.tables[0].rows[0] == ("calls", "3")


@given(data=st.data())
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_another_target_changes_no_byte_of_what_is_asked_and_written(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    ids = [item.item_id for item in items()]
    other = {user: [*basket[:-1], data.draw(st.sampled_from(ids))] for user, basket in list(TRAIN.items())[:6]}
    same = dict(list(TRAIN.items())[:6])
    seen = []
    for train in (same, other):
        workspace, teacher = make_shop(tmp_path_factory.mktemp("shop"), train), ScriptedTeacher(draft_of)
        run(chosen(workspace, backend="endpoint", model="vl"), workspace, load_picture=picture, teacher=teacher)
        requests = [(request.text, [shown.encoded for shown in request.pictures]) for request in teacher.asked]
        run(chosen(workspace, overwrite=True), workspace)
        seen.append((requests, [row["reasoning"] for row in written(workspace)]))
    assert seen[0] == seen[1]


def test_a_request_is_made_from_a_history_alone_and_names_no_user(tmp_path: Path) -> None:
    assert list(inspect.signature(DraftRequests.request).parameters) == ["self", "key", "history", "broken_rule"]
    workspace, teacher = make_shop(tmp_path), ScriptedTeacher(draft_of)
    asked(workspace, teacher)
    keys = {row["example_id"] for row in written(workspace)}
    assert not [text for text in teacher.texts if "visitor" in text or any(key in text for key in keys)]


def test_a_draft_too_short_is_asked_again_once_then_recorded(tmp_path: Path) -> None:
    stubborn = set[str]()

    def write(request: Any) -> str | None:
        first_line = request.text.splitlines()[1]
        if not stubborn:
            stubborn.add(first_line)
        if first_line in stubborn:
            return "Boats."
        return draft_of(request) if "could not be used: fewer than 15 words" in request.text else "Too short."

    workspace, teacher = make_shop(tmp_path), ScriptedTeacher(write)
    summary = asked(workspace, teacher)
    assert len(teacher.asked) == 2 * 24
    assert len(written(workspace)) == 23 == summary.facts["done"]
    manifest = Manifest.read(workspace.dataset(DATASET).pseudo_cot)
    assert manifest is not None
    assert manifest.counts["failed_by_reason"] == {"fewer than 15 words": 1}
    assert manifest.details["usage"]["calls"] == 48
    assert [table.title for table in summary.tables] == ["What it took", "Failures"]
    assert asked(workspace, ScriptedTeacher(draft_of)).headline.endswith("nothing to do.")
    repaired = ScriptedTeacher(draft_of)
    asked(workspace, repaired, retry_failed=True)
    assert len(repaired.asked) == 1
    assert len(written(workspace)) == 24


def test_failures_past_the_limit_fail_the_stage_and_keep_what_is_done(tmp_path: Path) -> None:
    workspace = make_shop(tmp_path)
    half = ScriptedTeacher(lambda request: draft_of(request) if "Bel" in request.text else None)
    with pytest.raises(BackendError, match="truncated"):
        asked(workspace, half, max_failure_share=0.1)
    assert not workspace.dataset(DATASET).pseudo_cot.exists()
    rest = ScriptedTeacher(draft_of)
    asked(workspace, rest, retry_failed=True)
    assert 0 < len(rest.asked) < 24
    assert not [text for text in rest.texts if "Bel" in text]


def test_a_larger_limit_extends_to_the_same_bytes(tmp_path: Path) -> None:
    whole, grown = make_shop(tmp_path / "whole"), make_shop(tmp_path / "grown")
    run(chosen(whole), whole)
    run(chosen(grown, limit=5), grown)
    assert len(written(grown)) == 5
    run(chosen(grown), grown)
    assert grown.dataset(DATASET).pseudo_cot.read_bytes() == whole.dataset(DATASET).pseudo_cot.read_bytes()
    assert run(chosen(grown), grown).headline.endswith("nothing to do.")


def test_other_settings_or_inputs_are_refused(tmp_path: Path) -> None:
    workspace = make_shop(tmp_path)
    run(chosen(workspace), workspace)
    with pytest.raises(ArtifactError, match="windows was 'last' and is now 'all'"):
        run(chosen(workspace, windows="all"), workspace)
    workspace.dataset(DATASET).captions.unlink()
    with pytest.raises(ArtifactError, match="captions has changed"):
        run(chosen(workspace), workspace)
    run(chosen(workspace, overwrite=True), workspace)
    assert not partial(workspace.dataset(DATASET).pseudo_cot).exists()


def test_a_dry_run_tells_calls_and_tokens_and_does_nothing(tmp_path: Path) -> None:
    workspace, teacher = make_shop(tmp_path), ScriptedTeacher(draft_of)
    summary = asked(workspace, teacher, dry_run=True, price_in=1.0, price_out=2.0, limit=7)
    (table,) = summary.tables
    assert dict(table.rows)["calls"] == "7"
    assert dict(table.rows)["tokens out, at most"] == f"{7 * 256:,}"
    assert teacher.asked == []
    assert not workspace.dataset(DATASET).pseudo_cot.exists()
    assert dict(run(chosen(workspace, dry_run=True), workspace).tables[0].rows)["calls"] == "0"


def test_a_model_must_be_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="needs --model"):
        validated(PseudoCotSettings, {"dataset": DATASET, "backend": "endpoint"}, "pseudo-cot")


def test_knobs_of_models_change_nothing_where_profile_writes(tmp_path: Path) -> None:
    workspace = make_shop(tmp_path)
    run(chosen(workspace), workspace)
    assert run(chosen(workspace, temperature=0.7, model="x", images="off"), workspace).headline.endswith("to do.")
    with pytest.raises(ArtifactError, match="seed was 42 and is now 7"):
        run(chosen(workspace, seed=7), workspace)


def test_a_local_model_is_opened_and_what_it_writes_is_checked(toy_copy: Workspace) -> None:
    """Random weights write no draft of a user's taste: every record says why there is none, and all is counted."""
    knobs = {"backend": "huggingface", "model": "tiny", "images": "off", "max_new_tokens": 24, "max_failure_share": 1.0}
    summary = run(PseudoCotSettings(dataset="toy", root=str(toy_copy.root), min_inter=5, limit=3, **knobs), toy_copy)
    manifest = Manifest.read(toy_copy.dataset("toy").pseudo_cot)
    assert manifest is not None
    assert summary.facts["in"] == 3 <= manifest.details["usage"]["calls"]
    assert set(manifest.counts["failed_by_reason"]) <= {"truncated", "empty", "fewer than 15 words"}
    assert "model" in manifest.inputs
