"""`mllmrec candidates`: draw the candidate lists of a split once and freeze them in a hashed file."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from mllmrec.artifacts import Workspace, sha256, write_jsonl
from mllmrec.data.candidates import candidate_rows, freeze, questions
from mllmrec.data.legacy import draw_legacy
from mllmrec.data.negatives import VERSION
from mllmrec.data.protocols import protocol_asked_for
from mllmrec.data.sequences import Interactions, Line, require_dataset
from mllmrec.errors import ArtifactError
from mllmrec.locks import locking
from mllmrec.making import drop_marker, making
from mllmrec.manifests import finished, hash_files, unmark, write_manifest
from mllmrec.records import RankingExample, Split, Summary
from mllmrec.settings.candidates import CandidatesSettings


def candidates_path(settings: CandidatesSettings, workspace: Workspace) -> Path:
    protocol = protocol_asked_for(settings)
    return workspace.candidates(settings.dataset, settings.split, protocol.stem, settings.min_inter, settings.seed)


def locked_path(settings: CandidatesSettings, workspace: Workspace) -> Path:
    """The file that is made, once the dataset is known to be there: a lock would make its folder."""
    require_dataset(workspace, settings.dataset)
    return candidates_path(settings, workspace)


@locking(locked_path)
def run(settings: CandidatesSettings, workspace: Workspace) -> Summary:
    """Write processed/<split>_<protocol>_w<min_inter>_s<seed>.jsonl."""
    started = time.monotonic()
    path = candidates_path(settings, workspace)
    inputs = hash_files(
        titles=workspace.titles(settings.dataset),
        **{split: workspace.split(settings.dataset, split) for split in ("train", "valid", "test")},
    )
    if finished(path, settings, inputs) is not None:
        drop_marker(path)
        return Summary(headline=f"{path.name} is there already; nothing to do.", artifact=path)
    interactions = Interactions.load(workspace, settings.dataset)
    examples, counts = _draw(settings, interactions)
    counts["examples"] = len(examples)
    drawn = {} if settings.legacy or settings.negatives == "all" else {"draws": VERSION}
    with making(path, settings):
        unmark(path)
        write_jsonl(path, candidate_rows(examples))
        digest = sha256(path)
        write_manifest(path, settings, inputs, started=started, counts=counts, details={"sha256": digest, **drawn})
    return Summary(
        headline=f"{len(examples)} {_lists(settings)} in {path.name}{left_out(counts)}",
        artifact=path,
        facts={"sha256": digest, **counts},
    )


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
    """What isn't in the file, or is there for want of better, in words; nothing where there is nothing to tell."""
    told = ""
    if counts["too_short"] + counts["duplicates"]:
        told += f"; {counts['too_short']} lines too short, {counts['duplicates']} duplicates"
    if counts.get("with_unseen"):
        told += f"; {counts['with_unseen']} lists hold items that training never saw, because the others were too few"
    return told


def _lists(settings: CandidatesSettings) -> str:
    return (
        "questions about the whole catalogue"
        if settings.negatives == "all"
        else f"lists of {settings.num_neg + 1} candidates"
    )


def _draw(settings: CandidatesSettings, interactions: Interactions) -> tuple[list[RankingExample], dict[str, int]]:
    lines = lines_asked(interactions, settings.dataset, settings.split)
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
