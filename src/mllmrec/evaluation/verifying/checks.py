"""The record of one verification, the shapes of metrics.json and manifest.json, and what these two say of each other.

`Checks` counts comparisons and keeps the differences by check. A metrics.json or manifest.json of another shape is
itself a difference, and its content is compared with nothing.

A RUN's provenance is its settings, the files that it was made from, and its speed. Part of it is reported twice, and
the files that were read can be hashed again. A file that is gone or was changed later is taken on trust, and so is what
left no trace: packages, the machine, the clock.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, TypeAdapter, ValidationError

from mllmrec.settings.base import explain
from mllmrec.settings.evaluation import BaselinesSettings, BlendedRunSettings, EvaluateSettings, RunSettings
from mllmrec.storage.manifests import Manifest, altered, hash_model
from mllmrec.storage.workspace import Workspace, sha256

SHOWN = 3
CLOSE = 1e-9
DETAILS = ("tuning", "thoughts")
"""What manifest.json and metrics.json both report."""
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
    "thoughts",
    "higher, ties and rank",
    "metrics",
    "intervals",
    "minimum detectable differences",
    "chance and vacuous metrics",
    "counts and shares",
    "length-normalised metrics",
    "blended scores",
    "weights of the blend",
    "what each part adds",
    "speed",
    "reference files",
)
METRICS, MANIFEST = "the shape of metrics.json", "manifest.json"
SETTINGS: dict[str, type[RunSettings]] = {
    made_by.verb: made_by for made_by in (EvaluateSettings, BaselinesSettings, BlendedRunSettings)
}
Kind = TypeVar("Kind")
Number = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(allow_inf_nan=False, ge=0, le=1)]
INPUTS, SPEED, FILES = "inputs", "speed", "files as they were written"
RULE = "users by hash of seed, split and user"
VERSION, REVISION, MOMENT = re.compile(r"\d"), re.compile(r"[0-9a-f]{40}"), re.compile(r"[-0-9T:]{19}Z")
OPERATIONAL = "what only decides where and how fast a RUN was made (batch, device, workers, packages, revision, time)"


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


class Added(Bounds):
    """What a part of a blend adds in one metric."""

    p: Share
    p_holm: Share
    detectable: Annotated[float, Field(ge=0)]


class PartRuns(BaseModel):
    """The folders of a part's RUNs, under the root or whole."""

    model_config = ConfigDict(strict=True, extra="forbid")

    test: str
    valid: str


class Weights(BaseModel):
    """Fitted weights by part, what they multiply, and the losses by which features and penalty were chosen."""

    model_config = ConfigDict(strict=True, extra="forbid")

    weights: dict[str, Number]
    features: Literal["scores", "ranks"]
    penalty: Number
    held_out_loss: dict[Literal["scores", "ranks"], dict[str, Number]]


class WeightsWithout(Weights):
    """The weights of the others, and what the part adds to them."""

    adds: dict[str, Added]


class ThoughtFigures(BaseModel):
    """How many thoughts each user had, and what all of them took."""

    model_config = ConfigDict(strict=True, extra="forbid")

    number: PositiveInt
    tokens: NonNegativeInt
    unfinished: NonNegativeInt
    seconds: Annotated[float, Field(allow_inf_nan=False, ge=0)]


class FittedLists(BaseModel):
    """How many validation lists weights were fitted on, and how many lack their target."""

    model_config = ConfigDict(strict=True, extra="forbid")

    fitted: PositiveInt
    left_out: NonNegativeInt


class BlendFacts(BaseModel):
    """How a blend came about."""

    model_config = ConfigDict(strict=True, extra="forbid")

    parts: dict[str, PartRuns]
    lists: FittedLists
    whole: Weights
    without: dict[str, WeightsWithout]
    metric: str


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
    blend: BlendFacts | None = None
    thoughts: ThoughtFigures | None = None
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


def check_files(checks: Checks, folder: Path, manifest: Manifest) -> None:
    """The manifest's seal and the hash of each file that it vouches for; a RUN of an earlier version has neither."""
    if not manifest.outputs and not manifest.seal:
        checks.on_trust.append("that its files are as they were written, which an earlier version didn't note")
        return
    checks.look(FILES, manifest.sealed() == manifest, "manifest.json was edited after it was written")
    changed = altered(folder, manifest, thorough=True)
    for name in manifest.outputs:
        fate = "was changed since" if (folder / name).exists() else "is gone"
        checks.look(FILES, name not in changed, f"{name} {fate}")
    for name in ("rankings.jsonl", "metrics.json"):
        checks.look(FILES, name in manifest.outputs, f"the manifest doesn't vouch for {name}")


def check_manifest(
    checks: Checks, facts: Mapping[str, Any], manifest: Manifest, settings: RunSettings, num_lists: int
) -> None:
    """The manifest against metrics.json and against itself; `num_lists` counts all lists of the candidate file."""
    expected = {
        "dataset": facts["dataset"],
        "top_k": facts["top_k"],
        "method": facts["method"],
        "seed": facts["interval"]["seed"],
    }
    reported = {"method": "score"} | settings.model_dump(mode="json")
    for name, value in expected.items():
        checks.equal(MANIFEST, f"{name} of settings", reported[name], value)
    complete = settings.completed(manifest.result_settings)
    for name, value in settings.result_settings().items():
        checks.equal(MANIFEST, f"{name} of result_settings", complete.get(name), value)
    checks.equal(MANIFEST, "details", manifest.details, {name: facts[name] for name in DETAILS if name in facts})
    expected_slice = None
    if settings.limit is not None and settings.limit < num_lists:
        expected_slice = {"of": num_lists, "by": f"{RULE}, seed {settings.seed}"}
    checks.equal("counts and shares", "slice", facts.get("slice"), expected_slice)
    _check_kinds(checks, manifest)
    _check_speed(checks, facts)
    checks.on_trust.append(OPERATIONAL)


def check_inputs(checks: Checks, facts: Mapping[str, Any], manifest: Manifest, roots: Sequence[Path]) -> None:
    """The hash of each file and model that the RUN was made from, where it is still under one of `roots`.

    What changed or went since is no fault of the RUN: it is taken on trust, which the table's note says.
    """
    gone, changed = [], []
    for role, reported in manifest.inputs.items():
        paths = _read_from(role, facts, roots)
        path = next((path for path in paths if path.exists()), None)
        if path is None:
            gone += [role] * bool(paths)
            continue
        same = reported == (hash_model(path) if path.is_dir() else sha256(path))
        checks.look(INPUTS, True, "")
        changed += [role] * (not same)
    if "model" in manifest.inputs:
        checks.look(INPUTS, isinstance(facts.get("model"), str), "metrics.json doesn't tell which model ranked")
        checks.equal(INPUTS, "whether adapters ranked", bool(facts.get("adapter")), "adapter" in manifest.inputs)
    for roles, what in ((gone, "no longer there"), (changed, "changed since the RUN was made")):
        if roles:
            checks.on_trust.append(f"what it read of {', '.join(roles)}, {what}")


def _read_from(role: str, facts: Mapping[str, Any], roots: Sequence[Path]) -> list[Path]:
    """The paths at which the input of a role may be; none for an input that is no file."""
    if role in ("model", "adapter"):
        return [Path(facts[role])] if isinstance(facts.get(role), str) else []
    datasets = [Workspace(root).dataset(facts["dataset"]) for root in roots]
    if role in ("train", "valid"):
        return [files.split(role) for files in datasets]
    split, _, part = role.partition(" ")
    if part:
        runs = facts.get("blend", {}).get("parts", {}).get(part, {})
        return [root / runs[split] / "rankings.jsonl" for root in roots] if split in runs else []
    if role == "titles":
        return [files.titles for files in datasets]
    return [files.captions for files in datasets] if role == "captions" else []


def _check_kinds(checks: Checks, manifest: Manifest) -> None:
    """Values that nothing else reports have at least the right form."""
    kinds = {
        "packages": all(VERSION.match(version) for version in manifest.packages.values()),
        "revision": manifest.revision is None or bool(REVISION.fullmatch(manifest.revision)),
        "finished_at": bool(MOMENT.fullmatch(manifest.finished_at)),
        "seconds": manifest.seconds >= 0,
    }
    for name, right in kinds.items():
        checks.look(MANIFEST, right, f"{name} is missing or of another kind")


def _check_speed(checks: Checks, facts: Mapping[str, Any]) -> None:
    """Users a second are the users by the seconds, both as they were rounded."""
    seconds, speed, users = facts["seconds"], facts["users_per_second"], facts["num_users"]
    slowest, fastest = users / (seconds + 0.0006) - 0.06, users / max(seconds - 0.0006, 1e-9) + 0.06
    reported = f"users_per_second is told as {speed!r}, and {users} users in {seconds!r} seconds"
    checks.look(SPEED, slowest <= speed <= fastest, f"{reported} are about {users / max(seconds, 1e-9):.1f}")
