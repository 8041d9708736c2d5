"""Which model may judge whose traces: one that was never trained on that user.

What a checkpoint saw is read from its manifest and from those of all models it was made from, down to the backbone: a
fold of the users is what it names, and without one it saw everybody. A small backbone that was pre-trained on the train
split's sequences saw everybody too. Where the chain can't be followed, or a base has changed since, what the scorer saw
is unknown, and it is refused like one that saw the user.

`Subjects` are the traces to assess, and `shares_of` divides them among the scorers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mllmrec.data.draws import in_fold
from mllmrec.data.item_files import read_captions
from mllmrec.data.model_folders import is_adapter
from mllmrec.data.prompts import TEMPLATE_VERSION, PromptFormat, inherited
from mllmrec.data.sequences import Catalogue, Interactions, is_held_out
from mllmrec.data.traces import TraceJoin, was_conditioned, written_traces
from mllmrec.errors import ArtifactError, DataError, SettingsError
from mllmrec.models.huggingface import resolve
from mllmrec.models.ranker import Ranker, load_ranker
from mllmrec.reasoning.assessment.prediction import ListDraw, PredictionJudge
from mllmrec.settings.texts import AssessSettings
from mllmrec.storage.manifests import Manifest, hash_model
from mllmrec.storage.workspace import Workspace, require, sha256

TRAINING = ("sft", "grpo")


@dataclass(frozen=True, kw_only=True)
class FoldScorer:
    """A checkpoint that may judge the users it never saw. `folds` are the parts it was trained on, "" for everybody."""

    tag: str
    base: str
    adapter: Path | None
    trained: PromptFormat
    folds: frozenset[str]

    def saw(self, user_id: str) -> bool:
        return any(in_fold(user_id, fold) for fold in self.folds)

    def hashes(self) -> dict[str, str]:
        parts = {"model": Path(self.base), "adapter": self.adapter}
        hashes = {name: hash_model(path) for name, path in parts.items() if path is not None and path.is_dir()}
        return {f"{self.tag} {name}": value for name, value in hashes.items()}


def choose_scorers(settings: AssessSettings, workspace: Workspace) -> list[FoldScorer]:
    """The scorers that --scorer names, each with what it saw."""
    train = sha256(workspace.dataset(settings.dataset).split("train"))
    return [_scorer(workspace, settings.dataset, tag, train) for tag in dict.fromkeys(settings.scorer)]


def assign(scorers: Iterable[FoldScorer], users: Iterable[str]) -> dict[str, FoldScorer]:
    """The first scorer that never saw each user. Raises SettingsError when every one of them saw some user."""
    chosen, scorers = dict[str, FoldScorer](), list(scorers)
    seen = [user for user in dict.fromkeys(users) if not _assigned(user, scorers, chosen)]
    if seen and scorers:
        trained_on = "; ".join(f"{scorer.tag} saw {_seen(scorer)}" for scorer in scorers)
        raise SettingsError(
            f"{len(seen)} of {len(seen) + len(chosen)} users (such as {seen[0]}) were trained on by every scorer: "
            f"{trained_on}. A scorer that saw the choice can't tell what a trace does for it. Train two, "
            "`mllmrec sft --fold 1/2` and `mllmrec sft --fold 2/2`, on a backbone that never saw the users, and give "
            "both: --scorer A,B."
        )
    return chosen


def open_scorer(settings: AssessSettings, workspace: Workspace, scorer: FoldScorer, catalogue: Catalogue) -> Ranker:
    """Load the scorer, ready to rank by prompts in the format it was trained with."""
    return load_ranker(
        workspace,
        scorer.base,
        scorer.adapter,
        catalogue=catalogue,
        captions=read_captions(workspace, settings.dataset, "on" if scorer.trained.captions else "off"),
        max_prompt_tokens=max(scorer.trained.max_prompt_tokens, settings.max_prompt_tokens),
        batch_tokens=settings.batch_tokens,
        device=settings.device,
        dtype=settings.dtype,
        advice=f"The scorer {scorer.tag} gives the lift of traces by such scores: train scorers on another backbone.",
    )


def check_window(scorers: Iterable[FoldScorer], window: int) -> None:
    """Refuse a scorer that was trained with other windows than the traces', or with another prompt template."""
    for scorer in scorers:
        inherited(scorer.trained, {"window": window}, f"the scorer {scorer.tag}")


@dataclass(frozen=True, kw_only=True)
class Subjects:
    """The traces to assess, by `users`: example id -> user, in the order of the file and up to --limit.

    `lengths` are the items of their windows; `counts` counts all records of the file by what became of them.
    """

    traces: TraceJoin
    interactions: Interactions
    are_refined: bool
    users: Mapping[str, str]
    lengths: frozenset[int]
    counts: Mapping[str, int]

    @classmethod
    def read(cls, settings: AssessSettings, workspace: Workspace) -> Subjects:
        """Join the file's traces to the train split; those of validation users, whom nothing trains on, stay out.

        Raises DataError when own records are stale, or nothing is left.
        """
        path = written_traces(workspace.dataset(settings.dataset))
        interactions = Interactions.load(workspace, settings.dataset)
        traces = TraceJoin(path, interactions)
        are_refined = path == workspace.dataset(settings.dataset).refined_cot
        users, lengths, counted = dict[str, str](), set[int](), Counter[str]()
        for trace, record in traces:
            if interactions.held_out and is_held_out(trace.user_id):
                counted["held_out"] += 1
            elif settings.limit is None or len(users) < settings.limit:
                users[trace.example_id] = trace.user_id
                lengths.add(len(trace.history) + 1)
                counted["answer_conditioned"] += was_conditioned(record, refined=are_refined)
        counts = dict(traces.counts + counted)
        if not users:
            raise DataError(
                f"{path}: none of its traces belongs to a window of the train split ({counts or 'it is empty'}). "
                "Expected what `mllmrec pseudo-cot` wrote of the same train.tsv; write them again with it."
            )
        return cls(
            traces=traces,
            interactions=interactions,
            are_refined=are_refined,
            users=users,
            lengths=frozenset(lengths),
            counts=counts,
        )


@dataclass(frozen=True, kw_only=True)
class Share:
    """The traces that one scorer judges; `open` loads it, and is None where there is no scorer."""

    keys: frozenset[str]
    open: Callable[[], PredictionJudge] | None


def shares_of(settings: AssessSettings, workspace: Workspace, subjects: Subjects) -> tuple[list[Share], dict[str, str]]:
    """A share for each scorer, and the hashes of the scorers. Without scorers one share holds all.

    Raises SettingsError when every scorer saw some user, or was trained with other windows.
    """
    if not settings.scorer:
        return [Share(keys=frozenset(subjects.users), open=None)], {}

    scorers = choose_scorers(settings, workspace)
    for length in subjects.lengths:
        check_window(scorers, length)
    chosen = assign(scorers, subjects.users.values())
    lists = ListDraw(orders=settings.orders, num_neg=settings.num_neg, seed=settings.seed)

    def opened_by(scorer: FoldScorer) -> Callable[[], PredictionJudge]:
        def opened() -> PredictionJudge:
            ranker = open_scorer(settings, workspace, scorer, subjects.interactions.catalogue)
            return PredictionJudge(ranker.scorer, ranker.encoder, subjects.interactions, lists)

        return opened

    shares = [
        Share(
            keys=frozenset(key for key, user in subjects.users.items() if chosen[user] is scorer),
            open=opened_by(scorer),
        )
        for scorer in scorers
    ]
    hashes = {role: value for scorer in scorers for role, value in scorer.hashes().items()}
    return shares, hashes | {"template": TEMPLATE_VERSION}


def _scorer(workspace: Workspace, dataset: str, tag: str, train: str) -> FoldScorer:
    folder = workspace.checkpoint(dataset, tag)
    there = sorted(path.parent.name for path in folder.parent.glob("*/manifest.json"))
    remedy = (
        f"Finished checkpoints of {dataset}: {', '.join(there) or 'none'}. Train one with `mllmrec sft --fold 1/2`."
    )
    manifest = Manifest.read(require(folder, f"The scorer {tag}", remedy))
    trained = PromptFormat.of(manifest)
    if manifest is None or trained is None:
        raise ArtifactError(f"{folder} has no finished manifest, which would say whom the scorer {tag} saw. {remedy}")
    adapter = folder if is_adapter(folder) else None
    base = resolve(workspace, str(manifest.details["model"] if adapter else folder))
    folds = frozenset(_folds(workspace, folder, dataset, train))
    return FoldScorer(tag=tag, base=base, adapter=adapter, trained=trained, folds=folds)


def _folds(workspace: Workspace, folder: Path, dataset: str, train: str) -> Iterator[str]:
    """The parts of the dataset's users that went into a model and into all it was made from.

    `train` is the hash of the training file, by which the dataset is known under another name too.
    """
    manifest = Manifest.read(folder)
    if manifest is None:
        return
    same = manifest.settings.get("dataset") == dataset or manifest.inputs.get("train") == train
    fold = str(manifest.settings.get("fold") or "")
    if manifest.verb == "backbone":
        if same and manifest.settings.get("sequence_steps"):
            yield fold
    elif manifest.verb in TRAINING:
        if same:
            yield fold
        base = _unchanged(
            folder, workspace.model(manifest.details["model"]), manifest.details["model"], manifest.inputs["model"]
        )
        if base is not None:
            yield from _folds(workspace, base, dataset, train)
    elif manifest.verb == "merge":
        adapter = workspace.checkpoint(manifest.settings["dataset"], manifest.settings["tag"])
        _unchanged(folder, adapter if adapter.is_dir() else None, str(adapter), manifest.inputs["adapter"])
        yield from _folds(workspace, adapter, dataset, train)
    else:
        raise _unknown_origin(folder, f"`mllmrec {manifest.verb}`")


def _unchanged(folder: Path, base: Path | None, name: str, used: str) -> Path | None:
    """The base of a model as it was used; None for one of the hub, which knows nothing of our users."""
    if base is None and used == name:
        return None
    if base is None or hash_model(base) != used:
        raise _unknown_origin(folder, name)
    return base


def _unknown_origin(folder: Path, base: str) -> ArtifactError:
    return ArtifactError(
        f"{folder} was made from {base}, which is gone or has changed since, so that nobody can tell whom it saw. "
        "Expected it as it was; train the scorer anew."
    )


def _assigned(user: str, scorers: Iterable[FoldScorer], chosen: dict[str, FoldScorer]) -> bool:
    scorer = next((scorer for scorer in scorers if not scorer.saw(user)), None)
    if scorer is not None:
        chosen[user] = scorer
    return scorer is not None


def _seen(scorer: FoldScorer) -> str:
    return "everybody" if "" in scorer.folds else "part " + " and ".join(sorted(scorer.folds))
