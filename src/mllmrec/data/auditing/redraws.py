"""Candidate files against their names: `test_uni9_w10_s42.jsonl` says which lists it holds, so they are drawn again.

What a retriever chose isn't retrieved again. Its lists are held against their rules: as many items as the name says,
the target among them where it has to be, and nothing that is known of the user.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from mllmrec.data.auditing.files import CandidateFile
from mllmrec.data.auditing.findings import DRAW, Finding, judged
from mllmrec.data.auditing.material import SPLITS, Material, attempt
from mllmrec.data.candidates import draw_version, freeze, questions
from mllmrec.data.legacy import draw_legacy
from mllmrec.data.negatives import VERSIONS
from mllmrec.data.protocols import ListsName, lists_named
from mllmrec.data.sequences import Interactions
from mllmrec.manifests import Manifest
from mllmrec.records import RankingExample

OTHERWISE = (
    "The lists aren't those that the file's name promises, because they were edited, drawn from other data, or named "
    "after another draw: figures on them mean something else. Draw the file again with `mllmrec candidates "
    "--overwrite` (`mllmrec retrieve` for lists of a retriever), or give it a name of your own."
)


def check(material: Material, file: CandidateFile) -> Iterator[Finding]:
    """The finding on a file that is named our way; none on another."""
    named = lists_named(file.path)
    if named is None:
        return
    if not _is_readable(material, named):
        yield Finding(check=DRAW, where=file.path.name, found="drawn from what can't be read", verdict="not checked")
        return
    found = attempt(file.path, lambda _: _least(material, named, file), material.wrong)
    if found is not None:
        yield judged(DRAW, file.path.name, len(file.examples), "lists", found, "wrong", meaning=OTHERWISE)


def _least(material: Material, named: ListsName, file: CandidateFile) -> list[str]:
    """What differs from the draw by the version that the manifest tells; without one, by the version that fits best."""
    manifest = attempt(file.path, Manifest.read, [])
    versions = VERSIONS if manifest is None else (draw_version(manifest),)
    return min((_faults(material, named, file, version) for version in versions), key=len)


def _faults(material: Material, named: ListsName, file: CandidateFile, version: int) -> list[str]:
    expected = _expected(material.interactions, named, version)
    lists = {example.example_id: example for example in file.examples}
    hits = [
        f"list {number}, user {example.user_id}, {fault}"
        for number, example in enumerate(file.examples, 1)
        if (fault := _fault(material, named, example, expected.get(example.example_id)))
    ]
    hits += [f"no list for user {example.user_id}" for key, example in expected.items() if key not in lists]
    if len(lists) < len(file.examples):
        hits.append(f"{len(file.examples) - len(lists):,} lists come twice")
    return hits


def _is_readable(material: Material, named: ListsName) -> bool:
    """Whether all that a draw hangs on was read; what wasn't is a finding of its own."""
    interactions, there = material.interactions, material.workspace
    missing = [split for split in SPLITS if not interactions.lines(split)]
    closed = any(there.split(material.dataset, split).exists() for split in missing)
    return bool(interactions.catalogue) and not closed and named.split not in missing


def _expected(interactions: Interactions, named: ListsName, version: int) -> dict[str, RankingExample]:
    """The examples that a name promises; of a retriever's file without candidates."""
    split, protocol, window, seed = named
    lines, drawn = interactions.lines(split), list[RankingExample]()
    if protocol.legacy:
        pool = interactions.catalogue.ids
        drawn = draw_legacy(lines, pool, split, window=window, num_neg=protocol.num, seed=seed)
    elif protocol.retriever:
        drawn, _ = questions(lines, split, window)
    else:
        knobs = {"window": window, "num_neg": protocol.num, "seed": seed}
        drawn, _ = freeze(interactions, split, **knobs, negatives=protocol.kind, version=version)
    return {example.example_id: example for example in drawn}


def _fault(material: Material, named: ListsName, example: RankingExample, own: RankingExample | None) -> str:
    if own is None or replace(own, candidates=example.candidates) != example:
        return "asks what no line of the split does"
    if not named.protocol.retriever:
        return "" if example.candidates == own.candidates else "holds other candidates or another order"
    negatives = set(example.candidates) - {example.target_id}
    if named.protocol.kind == "hard" and len(negatives) != named.protocol.num:
        return f"holds {len(negatives)} items beside its target"
    if named.protocol.kind == "rerank" and len(set(example.candidates)) != named.protocol.num:
        return f"holds {len(set(example.candidates))} items"
    known = material.known(named.split).get(example.user_id, frozenset())
    return f"holds {min(negatives & known)}, which is known of the user" if negatives & known else ""
