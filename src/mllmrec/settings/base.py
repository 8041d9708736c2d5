"""The base of all settings: how a knob is described, and which knobs decide the result.

A stage's settings are a frozen pydantic model. Command-line flags, help texts, recipe blocks and manifests are all made
from it. A knob is operational when no result depends on it (batch, device, price, limit); all others are compared with
the manifest of a finished artifact.

Addresses of servers are shown and written to manifests without passwords, keys and tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError
from pydantic.config import JsonDict

from mllmrec.errors import SettingsError

DIGITS = 8


def knob(default: Any, text: str, *, operational: bool = False, positional: bool = False, **bounds: Any) -> Any:
    """A settings field.

    `operational` marks what may change without changing the result (batch, workers, device); a `positional` knob
    may be given on the command line without its flag.
    """
    extra: JsonDict = {"operational": operational}
    return Field(default, description=text, json_schema_extra=extra, kw_only=not positional, **bounds)


def split_commas(value: Any) -> Any:
    """`3,5,10`, `["3,5", "10"]` and `[3, 5, 10]` all mean the same list; a number alone is a list of one."""
    if isinstance(value, (str, int)):
        value = [value]
    if not isinstance(value, (list, tuple)):
        return value
    parts = [part for entry in value for part in (entry.split(",") if isinstance(entry, str) else [entry])]
    return tuple(part.strip() if isinstance(part, str) else part for part in parts if part != "")


Integers = Annotated[tuple[int, ...], BeforeValidator(split_commas)]
Names = Annotated[tuple[str, ...], BeforeValidator(split_commas)]


def part_of_parts(value: str) -> str:
    """`i/n` with i from 1 to n, or nothing."""
    part, slash, parts = value.partition("/")
    if value and not (slash and part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts)):
        raise ValueError(f"fold = {value!r}: expected i/n with i from 1 to n, such as 1/2")
    return value


Fold = Annotated[str, AfterValidator(part_of_parts)]


class StageSettings(BaseModel):
    """Base of every stage's settings; subclasses set `verb` and add knobs."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    verb: ClassVar[str] = ""

    root: str = knob(".", "Folder that holds data/, checkpoints/ and result/.", operational=True)
    overwrite: bool = knob(False, "Replace a finished artifact that was made in another way.", operational=True)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Positional knobs come first, because the command line counts its words along the fields."""
        super().__pydantic_init_subclass__(**kwargs)
        fields = cls.__pydantic_fields__
        cls.__pydantic_fields__ = dict(sorted(fields.items(), key=lambda field: bool(field[1].kw_only)))

    def completed(self, before: Mapping[str, Any]) -> dict[str, Any]:
        """Result settings written down earlier, and for each knob that came into the program later its default."""
        fields = {name: type(self).model_fields[name] for name in self.result_settings()}
        values = {name: field.default for name, field in fields.items() if not field.is_required()}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        return plain | dict(before)

    def result_settings(self) -> dict[str, Any]:
        """The knobs that decide the result, as plain JSON values."""
        operational = {
            name
            for name, info in type(self).model_fields.items()
            if isinstance(info.json_schema_extra, dict) and info.json_schema_extra.get("operational")
        }
        return self.model_dump(mode="json", exclude=operational)


class DatasetSettings(StageSettings):
    """Settings of a stage that works on one dataset of the workspace."""

    dataset: str = knob(..., "Name of the dataset: the folder data/NAME under the root.")


Settings = TypeVar("Settings", bound=BaseModel)


def validated(model: type[Settings], values: dict[str, Any], where: str) -> Settings:
    """`model` from `values`; a SettingsError lists all errors at once, with the nearest known name for a slip."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise SettingsError(f"{where}: {explain(error, model)}") from None


def explain(error: ValidationError, model: type[BaseModel] | None = None, *, as_flags: bool = False) -> str:
    """One clause for each error of a validation; `as_flags` names knobs as the command line does."""
    import difflib
    import shlex

    clauses = []
    for problem in error.errors():
        key = ".".join(str(part).removesuffix("_") for part in problem["loc"]) or "settings"
        key = f"--{key.replace('_', '-')}" if as_flags else key
        if problem["type"] == "extra_forbidden":
            close = difflib.get_close_matches(key.replace("-", "_"), model.model_fields if model else [], n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            clauses.append(f"{key} is no setting here{hint}")
        elif problem["type"] == "missing":
            clauses.append(f"{key} is required")
        elif problem["type"] == "value_error":
            clauses.append(str(problem["ctx"]["error"]))
        else:
            given = f" {shlex.quote(str(problem['input']))}" if as_flags else f" = {problem['input']!r}"
            clauses.append(f"{key}{given}: {problem['msg'][0].lower()}{problem['msg'][1:]}")
    return "; ".join(clauses) + "."


def shown_address(address: str) -> str:
    """The address without fragment, user and password, and with a few digits of a hash for each value of its query.

    Another value still makes another address, and none can be read off it.

    >>> shown_address("https://me:secret@api.example.com/v1?key=abc&v#x"), shown_address("http://127.0.0.1/v1")
    ('https://api.example.com/v1?key=~ba7816bf&~4c94485e', 'http://127.0.0.1/v1')
    """
    location, question, query = address.partition("#")[0].partition("?")
    scheme, slashes, rest = location.rpartition("//")
    host, slash, path = rest.partition("/")
    shown = scheme + slashes + host.rpartition("@")[2] + slash + path
    return shown + question + "&".join(map(_hidden, query.split("&"))) if query else shown


def _hidden(pair: str) -> str:
    name, equals, value = pair.rpartition("=")
    return f"{name}{equals}~{hashlib.sha256(value.encode()).hexdigest()[:DIGITS]}"


Address = Annotated[str, PlainSerializer(shown_address, when_used="json-unless-none")]
"""An address that manifests hold as it may be shown; the program itself has it whole."""
