"""A knob is described once; what decides a result is told apart; mistakes come all at once with the nearest name."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel, Field, ValidationError, field_validator

from mllmrec import SettingsError
from mllmrec.settings.base import (
    DatasetSettings,
    Integers,
    Names,
    StageSettings,
    explain,
    knob,
    split_commas,
    validated,
)
from mllmrec.settings.data import CandidatesSettings
from mllmrec.settings.evaluation import CompareSettings
from mllmrec.settings.pipeline import DemoSettings, RunRecipeSettings
from mllmrec.settings.resources import DoctorSettings, FetchBackboneSettings, FetchDatasetSettings
from mllmrec.stages import STAGES

OTHERS = (CompareSettings, DemoSettings, DoctorSettings, FetchBackboneSettings, FetchDatasetSettings, RunRecipeSettings)
MODELS = [*dict.fromkeys(stage.settings for stage in STAGES.values()), *OTHERS]


class OvenSettings(DatasetSettings):
    verb: ClassVar[str] = "bake"

    heat: int = knob(180, "Degrees.", ge=50, le=300)
    minutes: float = knob(..., "Minutes.", gt=0)
    shelves: Integers = knob((1, 2), "Shelves.")
    toppings: Names = knob((), "Toppings.")
    fan: bool = knob(False, "Fan.", operational=True)

    @field_validator("toppings")
    @classmethod
    def _no_pineapple(cls, toppings: tuple[str, ...]) -> tuple[str, ...]:
        if "pineapple" in toppings:
            raise ValueError("toppings: pineapple is out of the question")
        return toppings


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("3,5,10", ("3", "5", "10")),
        (["3,5", "10"], ("3", "5", "10")),
        ([3, 5, 10], (3, 5, 10)),
        (" a , b ", ("a", "b")),
        ("3,", ("3",)),
        ("", ()),
        ((), ()),
        (7, (7,)),
        (None, None),
    ],
)
def test_a_list_may_be_written_with_commas(given: Any, expected: Any) -> None:
    assert split_commas(given) == expected


def test_lists_become_tuples_of_their_kind() -> None:
    oven = OvenSettings(dataset="d", minutes=5, shelves="3,1", toppings=["olive,caper", "basil"])
    assert oven.shelves == (3, 1)
    assert oven.toppings == ("olive", "caper", "basil")


def test_only_result_affecting_knobs_count_for_the_result() -> None:
    oven = OvenSettings(dataset="d", root="/w", overwrite=True, minutes=5, fan=True)
    expected = {"dataset": "d", "heat": 180, "minutes": 5.0, "shelves": [1, 2], "toppings": []}
    assert oven.result_settings() == expected
    assert json.loads(json.dumps(expected)) == expected


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        OvenSettings(dataset="d", minutes=5).heat = 200


def test_every_mistake_is_told_with_the_nearest_known_name() -> None:
    values = {"dataset": "d", "heat": 900, "shelfs": "1", "fan": "perhaps", "toppings": "pineapple", "zzz": 1}
    with pytest.raises(SettingsError) as error:
        validated(OvenSettings, values, "bake.yaml")
    assert str(error.value) == (
        "bake.yaml: heat = 900: input should be less than or equal to 300; minutes is required; "
        "toppings: pineapple is out of the question; "
        "fan = 'perhaps': input should be a valid boolean, unable to interpret input; "
        "shelfs is no setting here (did you mean shelves?); "
        "zzz is no setting here."
    )


def test_right_values_pass() -> None:
    assert validated(OvenSettings, {"dataset": "d", "minutes": "7.5"}, "x").minutes == 7.5


def test_hyphens_find_their_underscored_name() -> None:
    with pytest.raises(SettingsError, match=r"num-negs is no setting here \(did you mean num_neg\?\)"):
        validated(CandidatesSettings, {"dataset": "d", "num-negs": 3}, "x")


def test_a_trailing_underscore_is_our_affair_alone() -> None:
    with pytest.raises(SettingsError, match=r"from = 'mars': input should be 'huggingface' or 'modelscope'"):
        validated(FetchBackboneSettings, {"id": "Q/x", "from_": "mars"}, "x")


def test_mistakes_of_a_whole_model_are_explained_too() -> None:
    class Nested(BaseModel):
        rows: list[int] = Field(default_factory=list)

    with pytest.raises(ValidationError) as error:
        Nested.model_validate({"rows": [1, "x"]})
    assert explain(error.value, Nested).startswith("rows.1 = 'x': input should be a valid integer")


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_knob_of_every_stage_says_what_it_is(model: type[StageSettings]) -> None:
    assert model.verb
    assert model.__doc__
    for name, field in model.model_fields.items():
        assert field.description, f"{name} has no text"
        assert field.description.endswith("."), f"the text of {name} is no sentence"
        assert isinstance(field.json_schema_extra, dict)
        assert "operational" in field.json_schema_extra


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_where_and_how_a_stage_runs_never_decides_its_result(model: type[StageSettings]) -> None:
    operational = {"root", "overwrite", "device", "workers", "save_steps", "logging_steps", "resume", "batch_tokens"}
    decisive = {"dataset", "seed", "num_neg", "lr", "epochs", "rank", "beta", "reward", "method", "top_k"}
    for name, field in model.model_fields.items():
        extra = field.json_schema_extra
        assert isinstance(extra, dict)
        if name in operational:
            assert extra["operational"], name
        if name in decisive and not (name == "num_neg" and model.verb in ("baselines", "evaluate")):
            assert not extra["operational"] or model.verb in ("doctor", "run", "probe"), name


def test_words_without_a_flag_come_first_among_the_fields() -> None:
    assert next(iter(RunRecipeSettings.model_fields)) == "recipe"
    assert next(iter(FetchBackboneSettings.model_fields)) == "id"
    assert next(iter(CandidatesSettings.model_fields)) == "root"


def test_the_draw_of_the_reference_has_no_popular_negatives() -> None:
    with pytest.raises(ValidationError, match="the reference's draw is uniform"):
        CandidatesSettings(dataset="d", legacy=True, negatives="popularity")
