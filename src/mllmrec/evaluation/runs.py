"""A RUN: what one recommender did with one candidate file. Its only writer and its only reader.

    rankings.jsonl              one line a user: candidates, scores, and where the target came out
    metrics.json                every metric with its interval, what guessing would give, what these users can show
    NAME_DATASET_topK.csv/json  the reference implementation's pair of files, for each K
    rankings.raw-ids.jsonl      the rankings in raw ids, where --raw-ids asked for them
    manifest.json               settings and hashes, written last: without it the RUN is unfinished

Rankings go to disk as they come and everything else is taken from that file, so memory holds a few numbers a user.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from typing import Any, Literal

from mllmrec.artifacts import Workspace, read_json, require, write_json
from mllmrec.data.candidate_files import ranked_protocol, refuse_contradiction
from mllmrec.data.protocols import FOREIGN, IMPORTED, Protocol
from mllmrec.errors import ArtifactError, DataError
from mllmrec.evaluation.metrics import Position, chance, metric_names, per_user, vacuous
from mllmrec.evaluation.rankings import position_of, read_rankings, write_rankings
from mllmrec.evaluation.reference_files import reference_files, remove_reference_files, write_reference_files
from mllmrec.evaluation.statistics import DRAWS, Interval, bootstrap, minimum_detectable_alone
from mllmrec.manifests import Manifest, hash_files, manifest_path, unmark, write_manifest
from mllmrec.progress import note
from mllmrec.records import Ranking
from mllmrec.settings.evaluation import RunSettings

RAW_RANKINGS = "rankings.raw-ids.jsonl"
Method = Literal["score", "generate"]
TINY = 1e-12
SLICE = "users by hash of seed, split and user"


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished RUN folder and the content of its metrics.json."""

    folder: Path
    facts: Mapping[str, Any]

    @property
    def label(self) -> str:
        """The name in tables, with what sets this RUN apart from the plain one on the same candidates."""
        suffixes = self.folder.name.removeprefix(self.facts["candidates"]).split("_")
        return " ".join([self.facts["name"], *filter(None, suffixes)])

    @property
    def intervals(self) -> dict[str, Interval]:
        return {name: Interval(**bounds) for name, bounds in self.facts["metrics"].items()}

    def rankings(self) -> Iterator[Ranking]:
        """The rankings of every user; an ArtifactError at the end when some are missing or too many."""
        path, count = self.folder / "rankings.jsonl", 0
        for ranking in read_rankings(path):
            count += 1
            yield ranking
        if count != self.facts["num_users"]:
            raise ArtifactError(
                f"{path} is incomplete: it holds {count} rankings and metrics.json counts {self.facts['num_users']} "
                "users. Expected one line a user; make the RUN again with --overwrite."
            )


def candidate_file(settings: RunSettings, workspace: Workspace) -> Path:
    """The candidate file that these settings name; an ArtifactError tells the command that makes a missing one."""
    if settings.candidates is not None:
        beside = Path(settings.candidates).expanduser()
        under_root = workspace.root / beside
        path = beside if beside.exists() and not under_root.exists() else under_root
        require(path, "The candidate file", "Give --candidates the path of a file made by `mllmrec candidates`.")
    else:
        asked = protocol_asked(settings)
        path = workspace.candidates(settings.dataset, settings.split, asked.stem, settings.min_inter, settings.seed)
        require(path, "The candidate file", f"Make it with `{_command(settings, asked)}`.")
    refuse_contradiction(path)
    _refuse_stale(path, settings, workspace)
    if (protocol := ranked_protocol(path)) == f"{FOREIGN}{path.stem}":
        note(
            f"{path} has no manifest, so that nothing tells how its lists were drawn: its figures are named {protocol}."
        )
    return path


def protocol_asked(settings: RunSettings) -> Protocol:
    """The protocol that --negatives, --num-neg and --retriever name together."""
    retriever = settings.retriever if settings.negatives in ("hard", "rerank") else ""
    return Protocol(settings.negatives, 0 if settings.negatives == "all" else settings.num_neg, retriever)


def _command(settings: RunSettings, protocol: Protocol) -> str:
    """The command that makes the file of a protocol."""
    command = f"mllmrec {'retrieve' if protocol.retriever else 'candidates'} --dataset {settings.dataset}"
    command += f" --split {settings.split}"
    if protocol.num:
        command += f" --{'num' if protocol.retriever else 'num-neg'} {protocol.num}"
    chosen = {"root": settings.root}
    chosen |= {"retriever": settings.retriever} if protocol.retriever else {"negatives": settings.negatives}
    chosen |= {"min_inter": str(settings.min_inter), "seed": str(settings.seed)}
    for name, value in chosen.items():
        if value != str(RunSettings.model_fields[name].default):
            command += f" --{name.replace('_', '-')} {value}"
    return command + (" --rerank" if protocol.kind == "rerank" else "")


def _refuse_stale(path: Path, settings: RunSettings, workspace: Workspace) -> None:
    """Refuse lists that were made from other sequences or titles than the dataset holds now."""
    manifest = Manifest.read(path)
    if manifest is None:
        return
    files = {split: workspace.split(settings.dataset, split) for split in ("train", "valid", "test")}
    now = hash_files(titles=workspace.titles(settings.dataset), **files)
    names = (now.keys() | manifest.inputs.keys()) - {IMPORTED}
    changed = sorted(name for name in names if now.get(name) != manifest.inputs.get(name))
    if changed:
        raise ArtifactError(
            f"{path} was made from other data: {', '.join(changed)} changed since. Make it again with `mllmrec "
            f"{manifest.verb} --overwrite`."
        )


def run_folder(
    settings: RunSettings, workspace: Workspace, name: str, candidates: Path, method: Method = "score"
) -> Path:
    """Where the RUN of one recommender on one candidate file lies."""
    generated = "_generate" if method == "generate" else ""
    limited = f"_limit{settings.limit}" if settings.limit else ""
    return workspace.run(settings.dataset, name, f"{candidates.stem}{generated}{limited}")


def slice_input(settings: RunSettings) -> dict[str, str]:
    """What joins a RUN's inputs when it ranks a slice: by which rule its users were drawn."""
    return {"slice": SLICE} if settings.limit else {}


def write_run(
    folder: Path,
    rankings: Iterable[Ranking],
    settings: RunSettings,
    *,
    name: str,
    candidates: Path,
    inputs: Mapping[str, str],
    started: float,
    seconds: float,
    method: Method = "score",
    invalid_share: float = 0.0,
    world_size: int = 1,
    num_lists: int | None = None,
    details: Mapping[str, Any] | None = None,
) -> Run:
    """Write a whole RUN, its manifest last.

    `inputs` holds the candidate file's hash as "candidates"; `started` is the `time.monotonic()` at which the stage
    began, `seconds` what ranking took; `num_lists` counts the lists of the whole candidate file, of which a --limit
    ranks a slice; `details` are further facts for metrics.json.
    """
    unmark(folder)
    remove_reference_files(folder, name, settings.dataset)
    (folder / RAW_RANKINGS).unlink(missing_ok=True)
    path = folder / "rankings.jsonl"
    write_rankings(path, rankings)
    positions = [position_of(ranking) for ranking in read_rankings(path)]
    facts = {
        "dataset": settings.dataset,
        "name": name,
        "method": method,
        "protocol": ranked_protocol(candidates),
        "candidates": candidates.stem,
        "candidates_sha256": inputs["candidates"],
        **summarise(positions, settings.top_k, settings.seed),
        **_part(positions, settings, num_lists or len(positions)),
        "invalid_share": invalid_share,
        "seconds": round(seconds, 3),
        "users_per_second": round(len(positions) / max(seconds, 1e-9), 1),
        "world_size": world_size,
        **(details or {}),
    }
    write_json(folder / "metrics.json", facts)
    write_reference_files(folder, read_rankings(path), facts)
    counts = {
        "users": len(positions),
        "unranked": sum(position.higher == position.num_candidates for position in positions),
    }
    tuning = {name: value for name, value in (details or {}).items() if name == "tuning"}
    files = run_files(folder, name, settings.dataset)
    write_manifest(folder, settings, inputs, started=started, counts=counts, details=tuning, outputs=files)
    return Run(folder=folder, facts=facts)


def run_files(folder: Path, name: str, dataset: str) -> list[Path]:
    """What the manifest of a RUN vouches for; probes and other guests of the folder have manifests of their own."""
    return [folder / "rankings.jsonl", folder / "metrics.json", *reference_files(folder, name, dataset)]


def _part(positions: Sequence[Position], settings: RunSettings, num_lists: int) -> dict[str, Any]:
    """Which part of the file was ranked, and of how many users a retriever found the target; only where not of all."""
    facts: dict[str, Any] = {}
    if settings.limit and len(positions) < num_lists:
        facts["slice"] = {"of": num_lists, "by": f"{SLICE}, seed {settings.seed}"}
    if (listed := sum(position.listed for position in positions)) < len(positions):
        facts["num_listed"] = listed
    return facts


def summarise(positions: Sequence[Position], top_k: Sequence[int], seed: int) -> dict[str, Any]:
    """The part of metrics.json that follows from where the targets came out."""
    if not positions:
        raise DataError("There are no rankings to summarise. Expected at least one user; check the candidate file.")
    names = metric_names(top_k)
    empty = vacuous(positions, names)
    told = [name for name in names if name not in empty]
    values = per_user(positions, told)
    intervals = bootstrap(values, seed=seed)
    # A metric that is the same for every user doesn't show how far it varies, and neither does a single user's.
    detectable = [least if TINY < least < inf else None for least in minimum_detectable_alone(values)]
    return {
        "num_users": len(positions),
        "num_candidates": max(position.num_candidates for position in positions),
        "top_k": list(top_k),
        "metrics": {name: asdict(interval) for name, interval in zip(told, intervals, strict=True)},
        "vacuous": empty,
        "chance": chance(positions, told),
        "minimum_detectable": dict(zip(told, detectable, strict=True)),
        "interval": {"level": 0.95, "draws": DRAWS, "seed": seed},
    }


def read_run(folder: Path) -> Run:
    """A finished RUN; an ArtifactError when it is missing or unfinished, a DataError when its metrics are none."""
    require_finished(folder)
    facts = read_json(folder / "metrics.json")
    if not isinstance(facts, dict):
        raise DataError(f"{folder / 'metrics.json'} holds no object. Make the RUN again with --overwrite.")
    return Run(folder=folder, facts=facts)


def require_finished(folder: Path) -> None:
    """Raise an ArtifactError when a RUN is missing or unfinished."""
    require(folder, "The RUN", "Make it with `mllmrec evaluate` or `mllmrec baselines`, or mend the path.")
    if not manifest_path(folder).exists():
        raise ArtifactError(
            f"{folder} is no finished RUN: it has no manifest.json. Expected a folder that `mllmrec evaluate` or "
            "`mllmrec baselines` completed; start the same command again."
        )
