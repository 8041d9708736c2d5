"""The stage that refines drafts: blind by default, told apart when it isn't, checked, resumed, counted."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from faulty_server import faulty_server
from shelves import (
    DATASET,
    GOOD_STEPS,
    WINDOW,
    ScriptedTeacher,
    captions,
    catalogue,
    draft_of,
    lines,
    make_shop,
    steps_of,
)

from mllmrec.data.sequences import Interactions
from mllmrec.data.traces import TraceJoin
from mllmrec.errors import ArtifactError, BackendError, SettingsError
from mllmrec.models.base import Request
from mllmrec.reasoning.writing import pseudo_cot
from mllmrec.reasoning.writing.refine import run
from mllmrec.reasoning.writing.steps import four_steps
from mllmrec.records import Summary
from mllmrec.settings.base import validated
from mllmrec.settings.texts import REFINER, PseudoCotSettings, RefineSettings
from mllmrec.storage.manifests import Manifest
from mllmrec.storage.workspace import Workspace, read_json, write_json

TRAIN = lines()


def drafted(root: Path, train: dict[str, list[str]] | None = None) -> Workspace:
    """A shop whose drafts a model wrote."""
    workspace = make_shop(root, train)
    settings = PseudoCotSettings(
        dataset=DATASET, root=str(root), min_inter=WINDOW, backend="endpoint", model="m", images="off"
    )
    pseudo_cot.run(settings, workspace, teacher=ScriptedTeacher(draft_of))
    return workspace


def refined(workspace: Workspace, teacher: ScriptedTeacher, **knobs: Any) -> Summary:
    model = {"backend": "endpoint", "max_failure_share": 1.0}
    settings = RefineSettings(dataset=DATASET, root=str(workspace.root), **(model | knobs))
    return run(settings, workspace, teacher=teacher)


def written(workspace: Workspace) -> list[dict[str, Any]]:
    return list(read_json(workspace.dataset(DATASET).refined_cot))


def manifest_of(workspace: Workspace) -> Manifest:
    manifest = Manifest.read(workspace.dataset(DATASET).refined_cot)
    assert manifest is not None
    return manifest


def test_each_draft_becomes_four_steps_in_the_order_of_lines(tmp_path: Path) -> None:
    workspace, teacher = drafted(tmp_path), ScriptedTeacher(steps_of)
    summary = refined(workspace, teacher)
    drafts, records = list(read_json(workspace.dataset(DATASET).pseudo_cot)), written(workspace)
    assert [row["example_id"] for row in records] == [row["example_id"] for row in drafts]
    assert [row["line_idx"] for row in records] == list(range(24))
    assert all(four_steps(row["reasoning"]) == row["reasoning"] for row in records)
    assert {row["writer"] for row in records} == {"scripted"}
    assert summary.facts["done"] == 24
    assert summary.warnings == ()
    joined = TraceJoin(workspace.dataset(DATASET).refined_cot, Interactions.load(workspace, DATASET))
    assert len(list(joined)) == 24


def test_the_writer_sees_titles_captions_and_the_draft(tmp_path: Path) -> None:
    workspace, teacher = drafted(tmp_path), ScriptedTeacher(steps_of)
    refined(workspace, teacher)
    draft = read_json(workspace.dataset(DATASET).pseudo_cot)[0]["reasoning"]
    first = TRAIN["visitor-0z"][-WINDOW]
    assert f"1. {catalogue().title(first)} | its image: {captions()[first]}" in teacher.texts[0]
    assert f"A draft about this user:\n{draft}" in teacher.texts[0]


def test_another_target_changes_no_byte_of_what_is_asked(tmp_path: Path) -> None:
    seen = []
    for name, target in (("one", "410"), ("two", "305")):
        train = {user: [*basket[:-1], target] for user, basket in TRAIN.items()}
        workspace, teacher = drafted(tmp_path / name, train), ScriptedTeacher(steps_of)
        refined(workspace, teacher)
        seen.append(teacher.texts)
        assert not [text for text in teacher.texts if "visitor" in text]
    assert seen[0] == seen[1]


def test_conditioned_on_the_answer_is_another_prompt_and_marked_everywhere(tmp_path: Path) -> None:
    workspace, teacher = drafted(tmp_path), ScriptedTeacher(steps_of)
    summary = refined(workspace, teacher, answer_conditioned=True)
    for text, basket in zip(teacher.texts, TRAIN.values(), strict=True):
        assert f"Chosen next: {catalogue().title(basket[-1])}" in text
        assert "visitor" not in text
    assert all(row["answer_conditioned"] is True for row in written(workspace))
    assert manifest_of(workspace).details["answer_conditioned"] is True
    assert manifest_of(workspace).result_settings["answer_conditioned"] is True
    assert any("Answer-conditioned" in warning for warning in summary.warnings)
    with pytest.raises(ArtifactError, match="answer_conditioned was True and is now False"):
        refined(workspace, ScriptedTeacher(steps_of))


def test_no_parameter_of_the_blind_way_takes_a_target() -> None:
    from mllmrec.reasoning.writing.prompts import refine_prompt
    from mllmrec.reasoning.writing.resumable import shown_history

    assert list(inspect.signature(refine_prompt).parameters) == ["history", "draft"]
    assert list(inspect.signature(shown_history).parameters) == ["history", "catalogue", "captions", "pictured"]


def test_a_broken_form_is_asked_again_once_then_recorded(tmp_path: Path) -> None:
    workspace = drafted(tmp_path)
    named = catalogue().title(TRAIN["visitor-3z"][-2])

    def write(request: Request) -> str | None:
        if f"5. {named}" in request.text:
            return GOOD_STEPS + "\nThat is one.\nOr two."
        return steps_of(request) if "could not be used: Step 2 is empty" in request.text else "Step 1: a b c\nStep 2:"

    def stubborn(request: Request) -> str | None:
        text = write(request)
        return text if text != "Step 1: a b c\nStep 2:" else GOOD_STEPS.replace(GOOD_STEPS.splitlines()[1], "Step 2:")

    teacher = ScriptedTeacher(stubborn)
    summary = refined(workspace, teacher)
    failed = sum(f"5. {named}" in text for text in teacher.texts) // 2
    assert failed >= 1
    assert len(teacher.asked) == 48
    assert summary.facts["failed_by_reason"] == {"text outside the steps": failed}
    assert len(written(workspace)) == 24 - failed


def test_hints_of_a_markup_or_bullets_are_put_right(tmp_path: Path) -> None:
    workspace = drafted(tmp_path)
    bold = "\n".join(f"**{line[:7]}**{line[7:]}" for line in GOOD_STEPS.splitlines())
    refined(workspace, ScriptedTeacher(lambda _: bold))
    assert {row["reasoning"] for row in written(workspace)} == {GOOD_STEPS}


def test_a_larger_limit_extends_to_the_same_bytes_without_asking_twice(tmp_path: Path) -> None:
    whole, grown = drafted(tmp_path / "whole"), drafted(tmp_path / "grown")
    refined(whole, ScriptedTeacher(steps_of))
    first, second = ScriptedTeacher(steps_of), ScriptedTeacher(steps_of)
    refined(grown, first, limit=9)
    refined(grown, second)
    assert (len(first.asked), len(second.asked)) == (9, 15)
    assert grown.dataset(DATASET).refined_cot.read_bytes() == whole.dataset(DATASET).refined_cot.read_bytes()
    assert refined(grown, ScriptedTeacher(steps_of)).headline.endswith("nothing to do.")


def test_changed_drafts_or_prompts_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = drafted(tmp_path)
    refined(workspace, ScriptedTeacher(steps_of))
    monkeypatch.setattr("mllmrec.reasoning.writing.resumable.TEACHER_TEMPLATE_VERSION", "another")
    with pytest.raises(ArtifactError, match="template has changed"):
        refined(workspace, ScriptedTeacher(steps_of))
    monkeypatch.undo()
    drafts = read_json(workspace.dataset(DATASET).pseudo_cot)
    write_json(workspace.dataset(DATASET).pseudo_cot, drafts[:-1])
    with pytest.raises(ArtifactError, match="drafts has changed"):
        refined(workspace, ScriptedTeacher(steps_of))


def test_drafts_written_from_other_captions_are_told(tmp_path: Path) -> None:
    workspace = make_shop(tmp_path)
    pseudo_cot.run(PseudoCotSettings(dataset=DATASET, root=str(tmp_path), min_inter=WINDOW), workspace)
    shown = read_json(workspace.dataset(DATASET).captions)
    shown["100"]["caption"] = "A paper boat."
    write_json(workspace.dataset(DATASET).captions, shown)
    (warning,) = refined(workspace, ScriptedTeacher(steps_of)).warnings
    assert "written from other captions" in warning


def test_the_references_drafts_are_read_and_misfits_told(tmp_path: Path) -> None:
    workspace = make_shop(tmp_path)
    ours = drafted(tmp_path / "ours")
    records = list(read_json(ours.dataset(DATASET).pseudo_cot))
    for row in records:
        del row["example_id"], row["writer"], row["answer_conditioned"]
    records[5]["line_idx"], records[6]["line_idx"] = 6, 5
    write_json(workspace.dataset(DATASET).pseudo_cot, records)
    summary = refined(workspace, ScriptedTeacher(steps_of))
    assert summary.facts["done"] == 22
    assert summary.facts["drafts"] == {"joined": 22, "mismatched": 2}
    assert any("2 drafts belong to no window" in warning for warning in summary.warnings)
    assert [row["line_idx"] for row in written(workspace)] == [*range(5), *range(7, 24)]


def test_profile_refines_without_a_model_and_says_what_it_reads(tmp_path: Path) -> None:
    workspace = drafted(tmp_path)
    summary = run(RefineSettings(dataset=DATASET, root=str(tmp_path)), workspace)
    assert all(four_steps(row["reasoning"]) == row["reasoning"] for row in written(workspace))
    assert any("doesn't read the drafts" in warning for warning in summary.warnings)


def test_a_dry_run_counts_and_a_budget_stops(tmp_path: Path) -> None:
    workspace, teacher = drafted(tmp_path), ScriptedTeacher(steps_of)
    (table,) = refined(workspace, teacher, dry_run=True, price_in=0.5).tables
    assert dict(table.rows)["calls"] == "24"
    assert teacher.asked == []
    assert not workspace.dataset(DATASET).refined_cot.exists()
    with pytest.raises(BackendError, match="budget"):
        refined(workspace, teacher, price_out=10_000.0, budget=3.0)
    asked = len(teacher.asked)
    assert 0 < asked < 24
    rest = ScriptedTeacher(steps_of)
    summary = refined(workspace, rest, price_out=10_000.0)
    assert len(rest.asked) == 24 - asked
    assert ("money", "12.0000") in summary.tables[0].rows, "24 answers of 50 tokens each, earlier ones included"


def test_without_drafts_the_command_that_makes_them_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="mllmrec pseudo-cot --dataset shop"):
        refined(make_shop(tmp_path), ScriptedTeacher(steps_of))


def test_the_refiner_has_a_name_of_its_own_at_an_endpoint_only() -> None:
    assert RefineSettings(dataset=DATASET, backend="endpoint").model == REFINER
    assert RefineSettings(dataset=DATASET, backend="endpoint", model="mine").model == "mine"
    for values, words in (
        ({"backend": "huggingface"}, "needs --model"),
        ({"answer_conditioned": True}, "profile can't be shown a target"),
    ):
        with pytest.raises(SettingsError, match=words):
            validated(RefineSettings, {"dataset": DATASET} | values, "refine")


@pytest.mark.sockets
def test_no_key_reaches_a_file_or_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The server wants one key in its address and one in a header, and writes both into every answer."""
    keys = "sk-header-0123456789", "sk-query-9876543210"
    monkeypatch.setenv("MADE_UP_KEY", keys[0])
    workspace = drafted(tmp_path)
    echo = GOOD_STEPS.replace("quiet bays", f"quiet bays {keys[0]} {keys[1]}")
    with faulty_server(answer=lambda _text: echo) as server:
        address = f"{server.address}?key={keys[1]}"
        knobs = {"backend": "endpoint", "model": "m", "api_key_env": "MADE_UP_KEY", "base_url": address}
        summary = run(RefineSettings(dataset=DATASET, root=str(tmp_path), **knobs), workspace)
        assert all(request.target.endswith(f"?key={keys[1]}") for request in server.requests)
        again = run(RefineSettings(dataset=DATASET, root=str(tmp_path), **knobs), workspace)
    assert "quiet bays [key] [key]" in written(workspace)[0]["reasoning"]
    assert "nothing to do" in again.headline
    texts = [path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file()]
    shown = "".join([str(summary), *capsys.readouterr(), *texts])
    assert [key for key in keys if key in shown] == []
    assert f"{server.address}?key=~" in shown
