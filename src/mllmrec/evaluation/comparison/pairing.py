"""RUNs read for a comparison: configurations of one RUN or of several seeds, matched user by user.

Only RUNs that answered the same questions are compared: the same candidate file, the same protocol, the same examples
with the same lists, each once, in files that weren't altered since. An error names whatever differs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mllmrec.data.candidates.protocols import Protocol
from mllmrec.errors import ArtifactError, DataError
from mllmrec.evaluation.comparison.tables import check_same_question
from mllmrec.evaluation.metrics import Position
from mllmrec.evaluation.ranking.rankings import position_of
from mllmrec.evaluation.ranking.runs import Run, read_run
from mllmrec.records import Ranking
from mllmrec.storage.manifests import Manifest, refuse_altered
from mllmrec.storage.workspace import Workspace

SEED_SUFFIX = re.compile(r"(?<=.)[-_.]?(s|seed)?\d+(?= |$)")


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One RUN, or the RUNs of one way to train with several seeds."""

    runs: tuple[Run, ...]

    @property
    def label(self) -> str:
        """The name in tables: `sft (3 seeds)` for sft-s1, sft-s2 and sft-s3, else all their names."""
        labels = [run.label for run in self.runs]
        bare = {SEED_SUFFIX.sub("", label) for label in labels}
        if len(labels) == 1 or len(bare) > 1:
            return " + ".join(labels)
        return f"{bare.pop()} ({len(labels)} seeds)"


class PairedAnswer(NamedTuple):
    """What pairing keeps of a ranking; `question` is a hash of target and candidates."""

    user_id: str
    question: int
    position: Position


def read_configuration(words: str, workspace: Workspace) -> Configuration:
    """The RUN folder that `words` names, or the several ones joined by commas, each a path or a path under the root."""
    whole = run_named(words, workspace)
    folders = [whole] if whole.exists() else [run_named(word, workspace) for word in words.split(",") if word.strip()]
    _refuse_repeated(folders)
    runs = tuple(_read(folder) for folder in folders or [whole])
    for run in runs[1:]:
        if run.facts["method"] != runs[0].facts["method"]:
            raise DataError(
                f"{runs[0].folder} and {run.folder} were given as seeds of one configuration, and one ranked by "
                f"{runs[0].facts['method']}, the other by {run.facts['method']}. Expected RUNs that differ in their "
                "seed alone; give them as two words, with a space in place of the comma."
            )
    return Configuration(runs=runs)


def paired_positions(runs: Sequence[Run]) -> list[list[Position]]:
    """For each RUN the positions of all targets, users in the order of the first RUN.

    Raises DataError when the RUNs didn't answer the same questions.
    """
    _check_same_protocol(runs)
    answers = [_answers(run) for run in runs]
    for run, theirs in zip(runs[1:], answers[1:], strict=True):
        _check_same_users(runs[0], answers[0], run, theirs)
    return [[own[key].position for key in answers[0]] for own in answers]


def run_named(word: str, workspace: Workspace) -> Path:
    """The folder of a RUN: the one under the root, or else the path itself."""
    folder = Path(word.strip()).expanduser()
    under_root = workspace.root / folder
    return folder if folder.exists() and not under_root.exists() else under_root


def read_unaltered(folder: Path) -> Run:
    """A finished RUN whose rankings.jsonl and metrics.json are those that its manifest vouches for.

    Sizes and times are compared, and a file is hashed only when its time differs. A manifest of an earlier version
    vouches for no file, and metrics.json isn't compared where summarising other cut-offs was interrupted between it and
    the manifest. Raises ArtifactError for a RUN that is missing, unfinished or altered.
    """
    run, manifest = read_run(folder), Manifest.read(folder)
    assert manifest is not None, "a finished RUN has a manifest"
    halfway = run.facts.get("top_k") != manifest.settings.get("top_k")
    refuse_altered(folder, manifest, {"rankings.jsonl", *(() if halfway else ("metrics.json",))})
    return run


def _refuse_repeated(folders: Sequence[Path]) -> None:
    resolved = [folder.resolve() for folder in folders]
    for folder in folders:
        if resolved.count(folder.resolve()) > 1:
            raise DataError(
                f"{folder} was given twice as a seed of one configuration. Expected each RUN once: a copy has no seed "
                "of its own and would make the interval too narrow."
            )


def _read(folder: Path) -> Run:
    """A finished RUN; the error about an unfinished one says how far it got."""
    logs = sorted(folder.glob("rankings.*.partial.jsonl"))
    if logs and Manifest.read(folder) is None:
        raise ArtifactError(
            f"{folder} is incomplete: {len(logs)} working logs of processes or shards are there and no manifest.json, "
            "so that some users aren't ranked yet. Expected a finished RUN; start the same `mllmrec evaluate` command "
            "again, for every shard."
        )
    return read_unaltered(folder)


def _check_same_protocol(runs: Sequence[Run]) -> None:
    """Require one candidate file; of the reference's draw, which is stored in several files, the same lists suffice.

    Rankings keep lists of that draw whole, and `_check_same_users` compares them one by one.
    """
    check_same_question(runs, same_file=not all(_is_legacy(run) for run in runs))
    first = runs[0]
    for run in runs:
        if run.facts["protocol"] != first.facts["protocol"]:
            raise DataError(
                f"{first.folder} names its protocol {first.facts['protocol']} and {run.folder} {run.facts['protocol']}."
                " Expected one protocol; rank the same candidate file, under one name, with both."
            )
        if not run.facts["num_users"]:
            raise DataError(
                f"{run.folder} is empty: it ranked no users. Expected at least one; make it again with --overwrite."
            )


def _is_legacy(run: Run) -> bool:
    return Protocol.parse(run.facts["protocol"]).legacy


def _answers(run: Run) -> dict[str, PairedAnswer]:
    """The answer of a RUN to each example, by its id; an ArtifactError when an example occurs twice."""
    answers: dict[str, PairedAnswer] = {}
    for ranking in run.rankings():
        if ranking.example_id in answers:
            raise ArtifactError(
                f"{run.folder / 'rankings.jsonl'} holds example {ranking.example_id} of user {ranking.user_id} twice. "
                "Expected one line an example; make the RUN again with --overwrite."
            )
        answers[ranking.example_id] = _answer(ranking)
    return answers


def _answer(ranking: Ranking) -> PairedAnswer:
    """Of a list that isn't kept whole the length stands for its items: which are kept depends on the ranker."""
    asked = ranking.candidates if ranking.num_candidates is None else ranking.num_candidates
    return PairedAnswer(ranking.user_id, hash((ranking.target_id, asked)), position_of(ranking))


def _check_same_users(first: Run, ours: dict[str, PairedAnswer], other: Run, theirs: dict[str, PairedAnswer]) -> None:
    missing, foreign = ours.keys() - theirs.keys(), theirs.keys() - ours.keys()
    if missing or foreign:
        example = min(missing or foreign)
        raise DataError(
            f"{first.folder} and {other.folder} ranked different users: {len(missing)} examples are only in the first "
            f"and {len(foreign)} only in the second, such as {example} of user {(ours | theirs)[example].user_id}. "
            "Expected the same users; rank one candidate file with both."
        )
    for key, answer in ours.items():
        if answer.question != theirs[key].question:
            raise DataError(
                f"{first.folder} and {other.folder} gave user {answer.user_id} (example {key}) another target or other "
                "candidates. Expected the same list in both; rank one candidate file with both."
            )
