"""`mllmrec candidates`: draw the candidate lists of a split once, or import them, and freeze them in a hashed file."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from mllmrec.data.candidates.drawing import candidate_rows, freeze, questions
from mllmrec.data.candidates.foreign_lists import foreign_examples
from mllmrec.data.candidates.legacy import draw_legacy
from mllmrec.data.candidates.negatives import VERSION
from mllmrec.data.candidates.protocols import IMPORTED, ListsName, Protocol
from mllmrec.data.sequences import Interactions, Line, require_dataset
from mllmrec.errors import ArtifactError
from mllmrec.records import RankingExample, Split, Summary
from mllmrec.settings.data import CandidatesSettings, RetrieveSettings
from mllmrec.storage.locks import locking
from mllmrec.storage.manifests import drop_marker, finished, hash_files, making, unmark, write_manifest
from mllmrec.storage.workspace import Workspace, sha256, write_jsonl

OF_LISTS = ("without_target", "holding_known_items")
WEAKNESSES = {
    "without_line": "lists are of users without a line in this split and were left out.",
    "repeated_lists": "lists are of an example that has one already and were left out.",
    "repeated_items": "items stood in their list twice and count once.",
    "unknown_items": "items of lists are in neither titles nor sequences and were left out, so that lists differ in "
    "length and figures from published ones.",
    "untitled_items": "items have no title; they are named by their id, which tells a model nothing.",
    "without_target": "lists lack their target, which counts as missed.",
    "holding_known_items": "lists hold items that the user is known to have met, so that a right answer may count as "
    "wrong: figures compare with others on the same lists alone.",
}
"""Warnings about imported lists, by the count that each goes with."""


def lists_path(settings: CandidatesSettings | RetrieveSettings, workspace: Workspace) -> Path:
    """The file of the lists that are asked for.

    Raises ArtifactError where there is no dataset: the lock of the file would make its folder.
    """
    require_dataset(workspace, settings.dataset)
    return ListsName.asked(settings).path(workspace.dataset(settings.dataset))


@locking(lists_path)
def run(settings: CandidatesSettings, workspace: Workspace) -> Summary:
    """Write processed/<split>_<protocol>_w<min_inter>_s<seed>.jsonl."""
    started = time.monotonic()
    path = lists_path(settings, workspace)
    sources = workspace.dataset(settings.dataset).source_hashes()
    inputs = {**sources, **hash_files(**_imported_file(settings))}
    if finished(path, settings, inputs) is not None:
        drop_marker(path)
        return Summary(headline=f"{path.name} is there already; nothing to do.", artifact=path)
    interactions = Interactions.load(workspace, settings.dataset)
    examples, counts = _lists_of(settings, workspace, interactions)
    counts["examples"] = len(examples)
    drawn = {} if settings.legacy or settings.import_ or settings.negatives == "all" else {"draws": VERSION}
    with making(path, settings):
        unmark(path)
        write_jsonl(path, candidate_rows(examples))
        digest = sha256(path)
        write_manifest(path, settings, inputs, started=started, counts=counts, details={"sha256": digest, **drawn})
    headline = f"{len(examples):,} {_lists(settings, counts)} in {path.name}{left_out(counts)}"
    warnings = tuple(_import_warnings(counts)) if settings.import_ else ()
    return Summary(headline=headline, artifact=path, warnings=warnings, facts={"sha256": digest, **counts})


def lines_asked(interactions: Interactions, dataset: str, split: Split) -> list[Line]:
    """The lines of a split; an ArtifactError where there are none."""
    lines = interactions.lines(split)
    if not lines:
        raise ArtifactError(
            f"The dataset {dataset} has no {split} lines: {split}.tsv is missing or empty. Choose another --split, or "
            "add the file."
        )
    return lines


def left_out(counts: Mapping[str, int]) -> str:
    """What was left out of the file or added to it, in words; empty where nothing was."""
    text = ""
    if counts["too_short"] + counts["duplicates"]:
        text += f"; {counts['too_short']:,} lines too short, {counts['duplicates']:,} duplicates"
    if counts.get("targets_added"):
        text += f"; {counts['targets_added']:,} targets were added, because the lists came without theirs"
    if counts.get("with_unseen"):
        text += f"; {counts['with_unseen']:,} lists hold items that training never saw, because the others were too few"
    return text


def _imported_file(settings: CandidatesSettings) -> dict[str, Path]:
    """The file of --import among the inputs."""
    if not settings.import_:
        return {}
    path = Path(settings.import_).expanduser()
    if not path.is_file():
        raise ArtifactError(f"--import {path} is no file. Expected a file of candidate lists; see docs/protocols.md.")
    return {IMPORTED: path}


def _import_warnings(counts: Mapping[str, int]) -> Iterator[str]:
    """The weaknesses of imported lists that occur, one sentence each."""
    for name, text in WEAKNESSES.items():
        if counts[name]:
            share = f" ({counts[name] / counts['examples']:.1%})" if name in OF_LISTS else ""
            yield f"{counts[name]:,}{share} {text}"


def _lengths(counts: Mapping[str, int]) -> str:
    shortest, longest = counts["shortest"], counts["longest"]
    return str(longest) if shortest == longest else f"{shortest} to {longest}"


def _lists(settings: CandidatesSettings, counts: Mapping[str, int]) -> str:
    if settings.import_:
        return f"imported lists of {_lengths(counts)} candidates ({Protocol.asked(settings).shown})"
    if settings.negatives == "all":
        return "questions about the whole catalogue"
    return f"lists of {settings.num_neg + 1} candidates"


def _lists_of(
    settings: CandidatesSettings, workspace: Workspace, interactions: Interactions
) -> tuple[list[RankingExample], dict[str, int]]:
    """The examples of the file, imported or drawn, and how many were left out and why."""
    lines = lines_asked(interactions, settings.dataset, settings.split)
    if settings.import_:
        return foreign_examples(settings, workspace, interactions)
    if not settings.legacy:
        return freeze(
            interactions,
            settings.split,
            window=settings.min_inter,
            num_neg=settings.num_neg,
            seed=settings.seed,
            negatives=settings.negatives,
        )
    _, counts = questions(lines, settings.split, settings.min_inter)
    examples = draw_legacy(
        lines,
        interactions.catalogue.ids,
        settings.split,
        window=settings.min_inter,
        num_neg=settings.num_neg,
        seed=settings.seed,
    )
    return examples, counts
