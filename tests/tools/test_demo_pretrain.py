"""A short pre-training: it runs, goes on to the same weights, and its loss is what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from demo_backbone.curriculum import Level, curriculum
from demo_backbone.lessons import Shape
from demo_backbone.pretrain import main, pretrain
from demo_backbone.pretrain_pupil import READOUT_WEIGHT, Plan, Pupil, respelt
from demo_backbone.sheets import lessons
from mllmrec.data.model_folders import lacking
from mllmrec.errors import ArtifactError, SettingsError
from mllmrec.storage.workspace import read_json, sha256

SMALL = Plan(layers=2, width=32, heads=1, inner_width=32, vocab=600, last_steps=4)
LEVEL = Level(name="test", shapes=(), recitals=2, rest_weight=0.3, recital_weight=0.6, spelling_weight=0.7)


@pytest.fixture(scope="module")
def pupil() -> Pupil:
    return Pupil(SMALL)


def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    whole = pretrain(tmp_path / "whole", SMALL, stop_after=3)
    pretrain(tmp_path / "halves", SMALL, stop_after=1)
    torch.rand(3)
    halves = pretrain(tmp_path / "halves", SMALL, stop_after=2)
    assert (halves.steps, halves.tokens) == (whole.steps, whole.tokens) == (3, whole.tokens)
    for name in ("model/model.safetensors", "state/state.safetensors"):
        assert sha256(tmp_path / "halves" / name) == sha256(tmp_path / "whole" / name)
    assert lacking(tmp_path / "whole" / "model") == []
    with pytest.raises(ArtifactError, match=r"holds a run made with .*'seed': 2026.*; this one has .*'seed': 1"):
        pretrain(tmp_path / "halves", Plan(**{**vars(SMALL), "seed": 1}), stop_after=1)


def test_a_run_may_begin_at_a_level_with_given_weights(tmp_path: Path) -> None:
    pretrain(tmp_path / "first", SMALL, stop_after=1)
    start = {"weights": str(tmp_path / "first" / "model"), "first_level": "judging", "last_steps": 1}
    place = pretrain(tmp_path / "second", Plan(**{**vars(SMALL), **start}), stop_after=0)
    assert (place.level, place.steps) == (len(curriculum(1)) - 1, 0)
    first, second = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("first", "second"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert pretrain(tmp_path / "second", Plan(**{**vars(SMALL), **start})).steps == 1


@pytest.mark.parametrize(
    ("start", "told"),
    [
        ({"weights": "here"}, "Give both or none"),
        ({"first_level": "judging"}, "Give both or none"),
        ({"weights": "here", "first_level": "nonsense"}, "2 candidates, .*judging"),
        ({"weights": "nowhere", "first_level": "judging"}, "--weights nowhere can't be begun with: .*nowhere"),
    ],
)
def test_a_start_that_makes_no_sense_is_told(start: dict[str, str], told: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=told):
        pretrain(tmp_path / "out", Plan(**{**vars(SMALL), **start}), stop_after=0)


def test_weights_of_another_shape_are_told_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pretrain(tmp_path / "first", SMALL, stop_after=0)
    words = ["--out", str(tmp_path / "second"), "--first-level", "judging"]
    with pytest.raises(SystemExit) as exit_:
        main([*words, "--weights", str(tmp_path / "first" / "model"), "--layers", "1", "--width", "64"])
    assert exit_.value.code == 2
    assert "the same --layers, --width" in capsys.readouterr().err


def test_half_a_checkpoint_is_none(tmp_path: Path) -> None:
    """Killed between the two files: the run begins again rather than mix them."""
    pretrain(tmp_path, SMALL, stop_after=1)
    tensors = tmp_path / "state" / "state.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-4] + bytes(4))
    assert pretrain(tmp_path, SMALL, stop_after=1).steps == 1


def test_the_command_tells_its_flags_and_writes_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "--last-steps" in capsys.readouterr().out


def test_the_loss_is_on_the_answer_fully_on_its_id(pupil: Pupil) -> None:
    """Against one forward pass a lesson, without padding, the readout worked out by hand."""
    drawn = lessons(3, "test", "", Shape(history=2, candidates=3), 3)
    sheets = [pupil.desk.sheet(lesson, 2) for lesson in drawn]
    sheets.append(pupil.desk.sheet(lessons(3, "test", "longer", Shape(history=4, candidates=5), 1)[0], 2))
    with torch.no_grad():
        loss, *_ = pupil(sheets, LEVEL)
        expected = 0.0
        for sheet in sheets:
            row = torch.tensor([[*sheet.prompt_T, *sheet.answer_T]])
            logits = pupil.model(input_ids=row).logits[0, len(sheet.prompt_T) - 1 : -1]
            nats = functional.cross_entropy(logits, torch.tensor(sheet.answer_T), reduction="none")
            weights = torch.full_like(nats, LEVEL.rest_weight)
            weights[1 : 1 + sheet.num_id_tokens] = 1
            expected += float((nats * weights).sum()) / len(sheets)
        recited = []
        for sheet in sheets:
            told = [*sheet.prompt_T, *sheet.answer_T]
            for given, rest in sheet.recitals:
                row = torch.tensor([[*told, *given, *rest]])
                logits = pupil.model(input_ids=row).logits[0, -len(rest) - 1 : -1]
                recited += functional.cross_entropy(logits, torch.tensor(rest), reduction="none").tolist()
                told += [*given, *rest]
        expected += LEVEL.recital_weight * sum(recited) / len(recited)
        spelt = []
        for sheet in sheets:
            logits = pupil.model(input_ids=torch.tensor([sheet.prompt_T])).logits[0]
            spelt += [
                functional.cross_entropy(logits[place - 1], torch.tensor(sheet.prompt_T[place])).item()
                for place in respelt(sheet.prompt_T, pupil.inner)
            ]
        expected += LEVEL.spelling_weight * sum(spelt) / len(spelt)
        hidden = [
            pupil.model.model(input_ids=torch.tensor([sheet.prompt_T]), output_hidden_states=True).hidden_states[2][0]
            for sheet in sheets
        ]
        choice = [
            functional.cross_entropy(pupil.readout(h[s.line_ends_C]).T, torch.tensor([s.right]))
            for h, s in zip(hidden, sheets, strict=True)
        ]
        expected += READOUT_WEIGHT * float(sum(choice)) / len(sheets)
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_readings_tell_level_accuracy_and_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demo_backbone.pretrain.READING_STEPS", 2)
    pretrain(tmp_path, SMALL, stop_after=3)
    (reading,) = read_json(tmp_path / "readings.json")
    assert (reading["level"], reading["step"]) == ("2 candidates", 2)
    assert all(0 <= share <= 1 for kind in ("right", "whole", "readout") for share in reading[kind])


def test_words_are_spelt_as_before_and_only_within(pupil: Pupil) -> None:
    """Of `Balo Rimuk` and `Rimuk Teno` what follows the second `Rim` counts, and no beginning of a word."""
    tokens = pupil.tokenizer.convert_ids_to_tokens
    (sheet,) = (pupil.desk.sheet(lesson) for lesson in lessons(3, "test", "", Shape(history=4, candidates=6), 1))
    places = respelt(sheet.prompt_T, pupil.inner)
    assert places
    for place in places:
        before, token = sheet.prompt_T[place - 1 : place + 1]
        assert tokens(token).isalpha()
        assert (before, token) in zip(sheet.prompt_T[: place - 1], sheet.prompt_T[1:place], strict=False)
