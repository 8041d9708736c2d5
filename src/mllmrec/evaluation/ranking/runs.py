"""A RUN: the rankings and metrics of one recommender on one candidate file, written and read here alone.

    rankings.jsonl              one line a user: candidates, scores, and where the target came out
    thoughts.jsonl              what the model thought before it answered, where --thoughts asked for it
    metrics.json                every metric with its interval, what guessing would give, what these users can show
    NAME_DATASET_topK.csv/json  the reference implementation's pair of files, for each K
    rankings.raw-ids.jsonl      the rankings in raw ids, where --raw-ids asked for them
    manifest.json               settings and hashes, written last: without it the RUN is unfinished

Rankings go to disk as they come and everything else is computed from that file, so memory holds a few numbers a user.

In the reference implementation's files `pred_topk` is one definite list: candidates of equal score stand in candidate
order, and `hit` and `rank` refer to that list. HR@K and NDCG@K in the JSON are the RUN's own, expectations over ties,
or "vacuous". The rankings in raw ids are an export for readers who know the data by those ids; nothing reads them, and
the manifest doesn't vouch for them.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from math import inf
from pathlib import Path
from typing import Any, Literal

from mllmrec.data.candidates.drawing import read_candidates
from mllmrec.data.candidates.files import is_vouched_for, ranked_protocol, refuse_contradiction
from mllmrec.data.candidates.legacy import load_candidates
from mllmrec.data.candidates.protocols import IMPORTED, ListsName, Protocol
from mllmrec.data.raw_ids import RawIds
from mllmrec.data.sequences import Interactions
from mllmrec.errors import ArtifactError, DataError
from mllmrec.evaluation.comparison.statistics import DRAWS, Interval, bootstrap, minimum_detectable_alone
from mllmrec.evaluation.metrics import Position, chance, metric_names, per_user, vacuous
from mllmrec.evaluation.ranking.rankings import UNANSWERED, position_of, read_rankings, write_rankings
from mllmrec.launch import rank_and_size
from mllmrec.progress import note
from mllmrec.records import Ranking, RankingExample
from mllmrec.settings.evaluation import RunSettings
from mllmrec.storage.manifests import Manifest, manifest_path, unmark, write_manifest
from mllmrec.storage.workspace import Workspace, cached_sha256, read_json, replacing, require, write_json

RAW_RANKINGS, THOUGHTS = "rankings.raw-ids.jsonl", "thoughts.jsonl"
Method = Literal["score", "generate"]
TINY = 1e-12
SLICE = "users by hash of seed, split and user"

COLUMNS = ("index", "target_id", "pred_topk", "hit", "rank")
BYTE_ORDER_MARK = "\ufeff"


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


def ranked_file(run: Run, roots: Iterable[Path], named: str | None, *, only_named: bool = False) -> Path | None:
    """The candidate file that a RUN ranked; None where there is none.

    It may be the file that is `named`, as a path or under one of the `roots`, or one of the RUN's candidates beside
    the data. Of those that exist it is the first with the RUN's hash, or else the first.
    """
    roots, stem = list(roots), run.facts["candidates"]
    paths = [Path(named).expanduser(), *(root / named for root in roots)] if named else []
    if not only_named:
        folders = [Workspace(root).dataset(run.facts["dataset"]).processed for root in roots]
        paths += [folder / f"{stem}{suffix}" for folder in folders for suffix in (".jsonl", ".json")]
    there = [path for path in paths if path.is_file()]
    same = (path for path in there if cached_sha256(path) == run.facts["candidates_sha256"])
    return next(same, there[0] if there else None)


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
    kept = {name: value for name, value in (details or {}).items() if name in ("tuning", "thoughts")}
    files = run_files(folder, name, settings.dataset)
    write_manifest(folder, settings, inputs, started=started, counts=counts, details=kept, outputs=files)
    return Run(folder=folder, facts=facts)


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


def summarise(positions: Sequence[Position], top_k: Sequence[int], seed: int) -> dict[str, Any]:
    """The part of metrics.json that follows from the positions of the targets. Raises DataError without any."""
    if not positions:
        raise DataError("There are no rankings to summarise. Expected at least one user; check the candidate file.")
    names = metric_names(top_k)
    empty = vacuous(positions, names)
    reported = [name for name in names if name not in empty]
    values = per_user(positions, reported)
    intervals = bootstrap(values, seed=seed)
    # A metric that is the same for every user doesn't show how far it varies, and neither does a single user's.
    detectable = [least if TINY < least < inf else None for least in minimum_detectable_alone(values)]
    return {
        "num_users": len(positions),
        "num_candidates": max(position.num_candidates for position in positions),
        "top_k": list(top_k),
        "metrics": {name: asdict(interval) for name, interval in zip(reported, intervals, strict=True)},
        "vacuous": empty,
        "chance": chance(positions, reported),
        "minimum_detectable": dict(zip(reported, detectable, strict=True)),
        "interval": {"level": 0.95, "draws": DRAWS, "seed": seed},
    }


def candidate_file(settings: RunSettings, workspace: Workspace) -> Path:
    """The candidate file that these settings name; an ArtifactError names the command that makes a missing one."""
    if settings.candidates is not None:
        beside = Path(settings.candidates).expanduser()
        under_root = workspace.root / beside
        path = beside if beside.exists() and not under_root.exists() else under_root
        require(path, "The candidate file", "Give --candidates the path of a file made by `mllmrec candidates`.")
    else:
        asked = ListsName.asked(settings)
        path = asked.path(workspace.dataset(settings.dataset))
        require(path, "The candidate file", f"Make it with `{_command(settings, asked.protocol)}`.")
    refuse_contradiction(path)
    _refuse_stale(path, settings, workspace)
    if not is_vouched_for(path):
        note(
            f"{path} has no manifest, so that nothing tells how its lists were drawn: its figures are named "
            f"{ranked_protocol(path)}."
        )
    return path


def ranked_examples(path: Path, run: Run, settings: Mapping[str, Any], workspace: Workspace) -> list[RankingExample]:
    """The examples of the candidate file of a RUN with these settings, those beyond its --limit included."""
    if path.suffix == ".jsonl":
        return read_candidates(path)
    return load_candidates(path, Interactions.load(workspace, run.facts["dataset"]), settings.get("min_inter", 10))


def run_folder(
    settings: RunSettings, workspace: Workspace, name: str, candidates: Path, method: Method = "score"
) -> Path:
    """Where the RUN of one recommender on one candidate file lies."""
    way = "_generate" if method == "generate" else settings.variant
    limited = f"_limit{settings.limit}" if settings.limit else ""
    return workspace.dataset(settings.dataset).run(name, f"{candidates.stem}{way}{limited}")


def run_files(folder: Path, name: str, dataset: str) -> list[Path]:
    """What the manifest of a RUN vouches for; probes and other guests of the folder have manifests of their own."""
    thoughts = [path for path in [folder / THOUGHTS] if path.exists()]
    return [folder / "rankings.jsonl", folder / "metrics.json", *thoughts, *reference_files(folder, name, dataset)]


def slice_input(settings: RunSettings) -> dict[str, str]:
    """What joins a RUN's inputs when it ranks a slice: by which rule its users were drawn."""
    return {"slice": SLICE} if settings.limit else {}


def write_reference_files(folder: Path, rankings: Iterable[Ranking], facts: Mapping[str, Any]) -> None:
    """Write NAME_DATASET_topK.csv and .json for each K of the RUN whose metrics.json holds `facts`."""
    stems = {k: f"{facts['name']}_{facts['dataset']}_top{k}" for k in facts["top_k"]}
    with ExitStack() as stack:
        writers = {}
        for k, stem in stems.items():
            file = stack.enter_context(replacing(folder / f"{stem}.csv"))
            file.write(BYTE_ORDER_MARK)
            writers[k] = csv.writer(file, lineterminator="\n")
            writers[k].writerow(COLUMNS)
        for index, ranking in enumerate(rankings, 1):
            best = best_first(ranking, answered_only=facts["method"] == "generate")
            for k, writer in writers.items():
                writer.writerow(_row(index, ranking, best[:k]))
    for k, stem in stems.items():
        write_json(folder / f"{stem}.json", _summary(facts, k))


def remove_reference_files(folder: Path, name: str, dataset: str) -> None:
    """Remove the files of an earlier RUN, which may have had other K."""
    for path in reference_files(folder, name, dataset):
        path.unlink()


def reference_files(folder: Path, name: str, dataset: str) -> list[Path]:
    """The reference implementation's files of a RUN that exist."""
    return [path for suffix in ("csv", "json") for path in sorted(folder.glob(f"{name}_{dataset}_top*.{suffix}"))]


def best_first(ranking: Ranking, *, answered_only: bool) -> list[str]:
    """The candidates by descending score, equals in candidate order; without those that no answer named.

    >>> best_first(Ranking(example_id="e", user_id="7", target_id="5", candidates=("4", "5", "6"),
    ...                    scores=(0.0, 2.0, 1.0), higher=0, ties=0, rank=1.0), answered_only=True)
    ['5', '6']
    """
    pairs = sorted(zip(ranking.scores, ranking.candidates, strict=True), key=lambda pair: -pair[0])
    return [item for score, item in pairs if not (answered_only and score == UNANSWERED)]


def write_raw_rankings(folder: Path, workspace: Workspace, dataset: str) -> None:
    """Write the rankings of a finished RUN in raw ids; one process does."""
    if rank_and_size()[0] or Manifest.read(folder) is None:
        return
    known = RawIds.read(workspace.dataset(dataset).raw_ids)
    path = folder / RAW_RANKINGS
    count = write_rankings(path, (_in_raw_ids(ranking, known) for ranking in read_rankings(folder / "rankings.jsonl")))
    note(f"{path} holds {count:,} rankings in raw ids.")


def _part(positions: Sequence[Position], settings: RunSettings, num_lists: int) -> dict[str, Any]:
    """Which part of the file was ranked, and how many users' lists hold the target; only where not all do."""
    facts: dict[str, Any] = {}
    if settings.limit and len(positions) < num_lists:
        facts["slice"] = {"of": num_lists, "by": f"{SLICE}, seed {settings.seed}"}
    if (listed := sum(position.listed for position in positions)) < len(positions):
        facts["num_listed"] = listed
    return facts


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
    now = workspace.dataset(settings.dataset).source_hashes()
    names = (now.keys() | manifest.inputs.keys()) - {IMPORTED}
    changed = sorted(name for name in names if now.get(name) != manifest.inputs.get(name))
    if changed:
        raise ArtifactError(
            f"{path} was made from other data: {', '.join(changed)} changed since. Make it again with `mllmrec "
            f"{manifest.verb} --overwrite`."
        )


def _row(index: int, ranking: Ranking, top: list[str]) -> tuple[object, ...]:
    hit = ranking.target_id in top
    return index, ranking.target_id, top, int(hit), top.index(ranking.target_id) + 1 if hit else ""


def _summary(facts: Mapping[str, Any], k: int) -> dict[str, Any]:
    hit_rate = facts["metrics"].get(f"HR@{k}")
    ndcg = facts["metrics"]["HR@1" if k == 1 else f"NDCG@{k}"]
    world_size = facts.get("world_size", 1)
    return {
        "dataset": facts["dataset"],
        "top_k": k,
        "HR@K": hit_rate["value"] if hit_rate else "vacuous",
        "NDCG@K": ndcg["value"],
        "total_test": facts["num_users"],
        "distributed": world_size > 1,
        "world_size": world_size,
    }


def _in_raw_ids(ranking: Ranking, known: RawIds) -> Ranking:
    return replace(
        ranking,
        user_id=known.user(ranking.user_id),
        target_id=known.item(ranking.target_id),
        candidates=tuple(map(known.item, ranking.candidates)),
    )
