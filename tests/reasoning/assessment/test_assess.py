"""`assess`: traces of known kind are rejected or ordered as they should be; choices are cheap; crashes cost nothing."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from gallery import DATASET, GENERIC, caption, make_gallery, title, traces, write_traces
from traces import own, reference
from workspaces import SUPPORT

from mllmrec.data.hints import HintDraw, read_hints
from mllmrec.data.sequences import Interactions
from mllmrec.errors import ArtifactError, DataError, SettingsError
from mllmrec.reasoning.assessment.stage import run
from mllmrec.records import Summary, Trace
from mllmrec.settings.texts import AssessSettings
from mllmrec.storage.manifests import Manifest
from mllmrec.storage.workspace import Workspace, read_json, write_json, write_text

SCRIPT = SUPPORT / "assessing.py"
KINDS = ("own", "another's", "verbatim", "paraphrase", "copied", "empty", "generic", "repeated", "formless")


@pytest.fixture
def gallery(tmp_path: Path) -> Workspace:
    return make_gallery(tmp_path / "workspace")


@pytest.fixture
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes a second, and one test looks at the picture."""
    monkeypatch.setattr("mllmrec.reasoning.assessment.stage.draw", lambda *_: None)


def assess(workspace: Workspace, dataset: str = DATASET, **knobs: Any) -> Summary:
    return run(AssessSettings(dataset=dataset, root=str(workspace.root), **knobs), workspace)


def assessed(workspace: Workspace, dataset: str = DATASET) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_json(workspace.dataset(dataset).assessed_cot)
    return rows


def planted() -> dict[str, Trace]:
    """Eight traces of each kind, by kind and number."""
    known, found = traces(), dict[str, Trace]()
    for at, each in enumerate(known):
        kind, number = KINDS[at % len(KINDS)], at // len(KINDS)
        one, two = title(each.target_id).removesuffix(" (1990)").split()
        text = {
            "own": each.reasoning,
            "another's": known[(at + 24) % len(known)].reasoning.replace("The user", "This user here"),
            "verbatim": f"{each.reasoning.removesuffix('.')}, such as {one} {two}.",
            "paraphrase": f"{each.reasoning.removesuffix('.')}, of {two.lower()}s and the {one.lower()}.",
            "copied": f"{each.reasoning.removesuffix('.')}: {caption(each.target_id)}",
            "empty": "",
            "generic": GENERIC.replace("pleasant", f"pleasant{number}").replace("good thing", f"nice{number} thing"),
            "repeated": known[KINDS.index("own")].reasoning.replace("from there", f"from there {number}"),
            "formless": each.reasoning.replace("Step 3", "Then"),
        }[kind]
        found[f"{kind} {number}"] = replace(each, reasoning=text)
    return found


@pytest.mark.usefixtures("no_picture")
def test_traces_of_known_kind_are_rejected_or_ordered(gallery: Workspace) -> None:
    kinds = planted()
    write_traces(gallery, list(kinds.values()))
    assess(gallery, keep=0.34)
    rows = {row["example_id"]: row for row in assessed(gallery)}
    by_kind = {kind: [rows[kinds[f"{kind} {number}"].example_id] for number in range(8)] for kind in KINDS}
    expected = {
        "verbatim": "names the target's title",
        "paraphrase": "paraphrases the target's title",
        "copied": "repeats the target's caption",
        "empty": "is empty",
        "formless": "lacks the four steps",
    }
    for kind, reason in expected.items():
        assert {row["reason"] for row in by_kind[kind]} == {reason}
        assert {row["confidence"] for row in by_kind[kind]} == {0.0}
    assert {row["reason"] for row in by_kind["repeated"]} == {"repeats another trace"}
    original = kinds["own 0"].example_id
    assert {row["scores"]["repeats"] for row in by_kind["repeated"]} == {original}
    assert {(row["keep"], row["reason"]) for row in by_kind["own"]} == {(True, None)}
    worst_own = min(row["confidence"] for row in by_kind["own"])
    best_generic = max(row["confidence"] for row in by_kind["generic"])
    assert worst_own > 0.95 > 0.8 > best_generic > fmean(row["confidence"] for row in by_kind["another's"])
    assert {row["keep"] for kind in KINDS if kind != "own" for row in by_kind[kind]} == {False}


def test_what_is_told_and_kept_adds_up_and_is_drawn(gallery: Workspace) -> None:
    write_traces(gallery, list(planted().values()))
    summary = assess(gallery)
    rows = assessed(gallery)
    manifest = Manifest.read(gallery.dataset(DATASET).assessed_cot)
    assert manifest is not None
    assert manifest.counts["in"] == manifest.counts["done"] == len(rows) == 72
    kept, left_out = manifest.counts["kept"], manifest.counts["left_out"]
    assert kept + sum(left_out.values()) == 72
    trusted = [row for row in rows if row["confidence"] > 0]
    assert kept == round(0.5 * len(trusted)) == sum(row["keep"] for row in rows)
    fates = {row[0]: row[1] for row in summary.tables[0].rows}
    assert fates["kept"] == str(kept)
    assert fates["names the target's title"] == "8"
    assert "prediction consistency" in summary.warnings[-1]
    picture = gallery.dataset(DATASET).results / "assessed_cot.png"
    drawn = picture.read_bytes()
    assert drawn.startswith(b"\x89PNG")
    assert len(drawn) > 20_000
    picture.unlink()
    assert "nothing to do" in assess(gallery).headline
    assert picture.read_bytes() == drawn, "a picture that is gone is drawn again"


@pytest.mark.usefixtures("no_picture")
def test_of_traces_that_say_the_same_the_one_about_its_own_history_stays(gallery: Workspace) -> None:
    """The first trace of the file is a copy of the last one, which somebody else's history explains."""
    written = traces()
    write_traces(gallery, [replace(written[0], reasoning=written[-1].reasoning), *written[1:]])
    assess(gallery, keep=1.0)
    rows = assessed(gallery)
    assert (rows[0]["reason"], rows[0]["scores"]["repeats"]) == ("repeats another trace", written[-1].example_id)
    assert all(row["keep"] for row in rows[1:])


@pytest.mark.usefixtures("no_picture")
def test_records_keep_what_they_held_in_the_order_of_the_file(gallery: Workspace) -> None:
    write_traces(gallery, traces())
    before: list[dict[str, Any]] = read_json(gallery.dataset(DATASET).refined_cot)
    assess(gallery)
    rows = assessed(gallery)
    added = {"scores", "confidence", "keep", "reason"}
    assert [{name: value for name, value in row.items() if name not in added} for row in rows] == before
    assert all(row.keys() == {*one, *added} for row, one in zip(rows, before, strict=True))


@pytest.mark.usefixtures("no_picture")
def test_another_choice_decides_anew_without_assessing_again(
    gallery: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_traces(gallery, list(planted().values()))
    assess(gallery, keep=0.5)
    path = gallery.dataset(DATASET).assessed_cot
    first = path.read_bytes()
    monkeypatch.setattr("mllmrec.reasoning.assessment.stage._assess", lambda *_: pytest.fail("assessed again"))
    assert "nothing to do" in assess(gallery, keep=0.5).headline
    assert path.read_bytes() == first
    assert "Chose again" in assess(gallery, keep=0.1).headline
    few = assessed(gallery)
    assert sum(row["keep"] for row in few) == round(0.1 * sum(row["confidence"] > 0 for row in few))
    assert "Chose again" in assess(gallery, threshold=0.9).headline
    assert all(row["keep"] == (row["confidence"] >= 0.9) for row in assessed(gallery))
    manifest = Manifest.read(path)
    assert manifest is not None
    assert manifest.counts["kept"] == sum(row["keep"] for row in assessed(gallery))
    assert manifest.settings["threshold"] == 0.9
    assess(gallery, keep=0.5)
    assert path.read_bytes() == first


@pytest.mark.usefixtures("no_picture")
def test_other_scores_are_refused_until_overwritten(gallery: Workspace) -> None:
    write_traces(gallery, traces())
    assess(gallery)
    with pytest.raises(ArtifactError, match=r"seed was 42 and is now 7.*--overwrite"):
        assess(gallery, seed=7)
    first = gallery.dataset(DATASET).assessed_cot.read_bytes()
    assess(gallery, seed=7, overwrite=True)
    assert gallery.dataset(DATASET).assessed_cot.read_bytes() != first
    write_traces(gallery, traces()[:-1])
    with pytest.raises(ArtifactError, match="the input traces has changed"):
        assess(gallery, seed=7)


@pytest.mark.usefixtures("no_picture")
def test_a_larger_limit_extends_to_the_same_bytes(gallery: Workspace, tmp_path: Path) -> None:
    written = list(planted().values())
    whole = make_gallery(tmp_path / "whole")
    for workspace in (gallery, whole):
        write_traces(workspace, written)
    assess(whole)
    assess(gallery, limit=30)
    assert len(assessed(gallery)) == 30
    assess(gallery, limit=50)
    assess(gallery)
    assert gallery.dataset(DATASET).assessed_cot.read_bytes() == whole.dataset(DATASET).assessed_cot.read_bytes()


@pytest.mark.usefixtures("no_picture")
def test_drafts_are_assessed_where_nothing_is_refined(gallery: Workspace) -> None:
    write_traces(gallery, [replace(each, reasoning=each.reasoning.replace("Step ", "Part ")) for each in traces()])
    gallery.dataset(DATASET).refined_cot.rename(gallery.dataset(DATASET).pseudo_cot)
    assess(gallery)
    assert {row["scores"]["steps"] for row in assessed(gallery)} == {None}
    assert any(row["keep"] for row in assessed(gallery))


@pytest.mark.usefixtures("no_picture")
def test_records_of_the_reference_are_verified_and_get_an_example_id(gallery: Workspace) -> None:
    spans = [(each.user_id, " ".join((*each.history, each.target_id)), each) for each in traces()[:20]]
    right = [reference(line, user, span, each.reasoning) for line, (user, span, each) in enumerate(spans)]
    wrong = [reference(line + 1, user, span, each.reasoning) for line, (user, span, each) in enumerate(spans)]
    failed = [
        reference(20 + at, each.user_id, " ".join((*each.history, each.target_id)), "")
        for at, each in enumerate(traces()[20:23])
    ]
    write_json(gallery.dataset(DATASET).refined_cot, [*right, *wrong, *failed])
    summary = assess(gallery)
    rows = assessed(gallery)
    assert [row["example_id"] for row in rows] == [each.example_id for each in traces()[:23]]
    assert "20 records of the file belong to no window of the train split" in summary.warnings[0]
    assert [row["reason"] for row in rows[20:]] == ["is empty"] * 3


def test_a_stale_trace_of_ours_is_an_error(gallery: Workspace) -> None:
    rows = [own(each.user_id, " ".join((*each.history, each.target_id))) for each in traces()]
    write_json(gallery.dataset(DATASET).refined_cot, [*rows, own("u0-0", "101 103 102 104 105")])
    with pytest.raises(DataError, match=r"1 of its traces can't be joined to train\.tsv"):
        assess(gallery)
    assert not gallery.dataset(DATASET).assessed_cot.exists()


def test_a_file_without_a_trace_of_the_train_split_is_refused(gallery: Workspace) -> None:
    write_json(gallery.dataset(DATASET).refined_cot, [reference(900, "u0-0", "101 102 103 104 105")])
    with pytest.raises(DataError, match=r"none of its traces belongs to a window of the train split.*mismatched"):
        assess(gallery)


@pytest.mark.usefixtures("no_picture")
def test_traces_that_were_written_with_the_answer_in_view_are_told(gallery: Workspace) -> None:
    spans = [(each.user_id, " ".join((*each.history, each.target_id)), each.reasoning) for each in traces()]
    rows = [own(user, span, reasoning=text, answer_conditioned=at < 7) for at, (user, span, text) in enumerate(spans)]
    write_json(gallery.dataset(DATASET).refined_cot, rows)
    assert "7 traces were written with the target in view" in assess(gallery).warnings[0]


@pytest.mark.usefixtures("no_picture")
def test_validation_users_stay_out(gallery: Workspace) -> None:
    gallery.dataset(DATASET).split("valid").unlink()
    write_traces(gallery, traces())
    summary = assess(gallery)
    held_out = 72 - len(assessed(gallery))
    assert 0 < held_out < 20
    assert f"{held_out} traces are of validation users" in summary.warnings[0]


@pytest.mark.usefixtures("no_picture")
def test_half_a_surrogate_pair_in_a_trace_does_no_harm(gallery: Workspace) -> None:
    each = traces()[0]
    row = own(each.user_id, " ".join((*each.history, each.target_id)), reasoning=each.reasoning + " \ud83d")
    write_text(gallery.dataset(DATASET).refined_cot, json.dumps([row]))
    assess(gallery, keep=1.0)
    assert assessed(gallery)[0]["reasoning"].endswith(" ?")


@pytest.mark.usefixtures("no_picture")
def test_training_gets_what_was_kept(gallery: Workspace) -> None:
    from mllmrec.data.candidates.drawing import questions

    write_traces(gallery, list(planted().values()))
    assess(gallery, keep=0.5)
    interactions = Interactions.load(gallery, DATASET)
    examples = questions(interactions.train, "train", 5)[0]
    hints = read_hints(gallery.dataset(DATASET), interactions, examples, HintDraw(share=1.0, seed=42))
    assert hints.texts == {row["example_id"]: row["reasoning"].strip() for row in assessed(gallery) if row["keep"]}


def test_an_embedder_that_is_not_installed_is_told_with_the_command(gallery: Workspace) -> None:
    if importlib.util.find_spec("sentence_transformers") is not None:
        pytest.skip("sentence-transformers is installed")
    write_traces(gallery, traces())
    with pytest.raises(SettingsError, match=r"pip install -c requirements\.lock -e '\.\[embed\]'"):
        assess(gallery, embedder="all-MiniLM-L6-v2")


def test_two_ways_to_choose_are_one_too_many() -> None:
    with pytest.raises(ValueError, match="keep and threshold are two ways to choose"):
        AssessSettings(dataset=DATASET, keep=0.5, threshold=0.5)
