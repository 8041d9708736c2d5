"""The record of one verification, and the shapes of metrics.json and manifest.json.

`Checks` counts comparisons and keeps the differences by check. A metrics.json or manifest.json of another shape is
itself a difference, and its content is compared with nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, TypeAdapter, ValidationError

from mllmrec.settings.base import explain
from mllmrec.settings.evaluation import BaselinesSettings, EvaluateSettings, RunSettings
from mllmrec.storage.manifests import Manifest

SHOWN = 3
CLOSE = 1e-9
ORDER = (
    "files as they were written",
    "the shape of metrics.json",
    "manifest.json",
    "inputs",
    "candidate file",
    "every example once",
    "same lists as the candidate file",
    "the whole catalogue but what is known",
    "one finite score a candidate",
    "higher, ties and rank",
    "metrics",
    "intervals",
    "minimum detectable differences",
    "chance and vacuous metrics",
    "counts and shares",
    "length-normalised metrics",
    "speed",
    "reference files",
)
METRICS, MANIFEST = "the shape of metrics.json", "manifest.json"
SETTINGS: dict[str, type[RunSettings]] = {"evaluate": EvaluateSettings, "baselines": BaselinesSettings}
Kind = TypeVar("Kind")
Number = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(allow_inf_nan=False, ge=0, le=1)]


class Checks:
    """Counts of comparisons and the differences among them; each name is one of ORDER.

    `on_trust` says in words what could be compared with nothing.
    """

    def __init__(self) -> None:
        self.looked_at = dict.fromkeys(ORDER, 0)
        self.differences: dict[str, list[str]] = {name: [] for name in ORDER}
        self.on_trust: list[str] = []

    def look(self, name: str, alike: bool, difference: str) -> bool:
        """Count one comparison of a check, keep the `difference` unless things are `alike`, and return `alike`."""
        self.looked_at[name] += 1
        if not alike:
            self.differences[name].append(difference)
        return alike

    def equal(self, name: str, what: str, reported: object, expected: object) -> bool:
        """Count one comparison of what a file reports with what was computed."""
        return self.look(name, reported == expected, f"{what} is told as {reported!r} and comes out as {expected!r}")

    def near(self, name: str, what: str, reported: object, expected: float, tolerance: float = CLOSE) -> bool:
        """Count one comparison of a number that a file reports with the one that was computed."""
        alike = isinstance(reported, (int, float)) and abs(reported - expected) <= tolerance
        return self.look(name, alike, f"{what} is told as {reported!r} and comes out as {expected!r}")

    @property
    def passed(self) -> bool:
        return not any(self.differences.values())

    def rows(self) -> tuple[tuple[str, str, str], ...]:
        """One row of cells for each check that had something to look at."""
        return tuple(
            (name, f"{count:,}", f"{len(self.differences[name]):,}") for name, count in self.looked_at.items() if count
        )

    def messages(self) -> Iterator[str]:
        """The first differences of each check in words, and how many more there are."""
        for name, differences in self.differences.items():
            if differences:
                more = f"; and {len(differences) - SHOWN:,} more" if len(differences) > SHOWN else ""
                yield f"{name}: {'; '.join(differences[:SHOWN])}{more}."


class Bounds(BaseModel):
    """A metric and the ends of its interval."""

    model_config = ConfigDict(strict=True, extra="forbid")

    value: Number
    low: Number
    high: Number


class Resampling(BaseModel):
    """How the intervals came about."""

    model_config = ConfigDict(strict=True, extra="forbid")

    level: Share
    draws: PositiveInt
    seed: NonNegativeInt


class Slice(BaseModel):
    """Which part of the candidate file was ranked."""

    model_config = ConfigDict(strict=True, extra="forbid")

    of: PositiveInt
    by: str


class MetricsFile(BaseModel):
    """The content of metrics.json; further keys are notes of the verb that wrote it."""

    model_config = ConfigDict(strict=True, extra="allow")

    dataset: str
    name: str
    method: Literal["score", "generate"]
    protocol: str
    candidates: str
    candidates_sha256: str
    num_users: PositiveInt
    num_candidates: PositiveInt
    top_k: Annotated[list[PositiveInt], Field(min_length=1)]
    metrics: dict[str, Bounds]
    vacuous: list[str]
    chance: dict[str, Share]
    minimum_detectable: dict[str, Number | None]
    interval: Resampling
    invalid_share: Share
    seconds: Annotated[float, Field(allow_inf_nan=False, ge=0)]
    users_per_second: Annotated[float, Field(allow_inf_nan=False, ge=0)]
    world_size: PositiveInt
    num_listed: NonNegativeInt | None = None
    slice: Slice | None = None
    length_normalised: dict[str, Share] | None = None
    length_normalised_places: list[tuple[NonNegativeInt, NonNegativeInt, PositiveInt, PositiveInt]] | None = None


def read_figures(checks: Checks, folder: Path) -> dict[str, Any] | None:
    """The content of metrics.json as it is written; None, and every difference in shape, where it can't be used."""
    content = _read(checks, METRICS, folder / "metrics.json", MetricsFile)
    return content.model_dump(mode="json", exclude_unset=True) if content is not None else None


def read_manifest(checks: Checks, folder: Path) -> Manifest | None:
    """The manifest; None, and every difference in shape, where it can't be used."""
    return _read(checks, MANIFEST, folder / "manifest.json", Manifest)


def read_settings(checks: Checks, manifest: Manifest) -> RunSettings | None:
    """The settings of the manifest, as the verb reads them; None where it wouldn't accept them."""
    model = SETTINGS.get(manifest.verb)
    if not checks.look(MANIFEST, model is not None, f"verb is {manifest.verb!r}, expected {' or '.join(SETTINGS)}"):
        return None
    assert model is not None
    try:
        settings = model.model_validate(manifest.settings)
    except ValidationError as error:
        checks.look(MANIFEST, False, f"settings: {explain(error, model)}")
        return None
    for name, value in settings.model_dump(mode="json").items():
        checks.equal(MANIFEST, f"{name} of settings", manifest.settings.get(name, value), value)
    return settings


def _read(checks: Checks, check: str, path: Path, kind: type[Kind]) -> Kind | None:
    adapter = TypeAdapter(kind)
    try:
        value = adapter.validate_json(path.read_bytes(), strict=True)
    except FileNotFoundError:
        checks.look(check, False, f"{path.name} is missing")
    except ValidationError as error:
        checks.look(check, False, explain(error))
    else:
        checks.look(check, True, "")
        return value
    return None
