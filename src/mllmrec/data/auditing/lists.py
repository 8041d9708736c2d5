"""Candidate lists under audit: what a list gives away about its target by its negatives or by its order.

Ours leave out all that is known of the user at that split and are shuffled for each example, so none of this can
happen unless a file was changed or made elsewhere. Negatives of the reference's draw may be items that the user did
consume; that is known, and only told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from mllmrec.data.auditing.chance import EXPECTED_PER_CELL, LEVEL, Place, evenness, lookup_attack
from mllmrec.data.auditing.files import CandidateFile, was_changed
from mllmrec.data.auditing.findings import (
    CONSUMED,
    CONTENT,
    LOOKUP,
    POSITION,
    TARGET_IN_HISTORY,
    Finding,
    Verdict,
    judged,
)
from mllmrec.data.auditing.material import Material, attempt, one_holds
from mllmrec.data.protocols import protocol_of
from mllmrec.records import RankingExample, example_id


def check_file(material: Material, file: CandidateFile) -> Iterator[Finding]:
    """All that can be said of one candidate file of ours."""
    yield _belonging(material, file)
    yield _form(file)
    yield from _changed(material, file.path)
    yield _foreign_target_in_history(material, file)
    yield from check_lists(material, file.path.name, file.examples, legacy=file.legacy)


def check_lists(
    material: Material, where: str, examples: Sequence[RankingExample], *, legacy: bool
) -> Iterator[Finding]:
    """Negatives and order of lists, wherever they come from."""
    yield _consumed(material, where, examples, legacy)
    places = [
        Place(
            example_id=example.example_id,
            target_id=example.target_id,
            position=example.candidates.index(example.target_id),
            length=len(example.candidates),
        )
        for example in examples
        if example.target_id in example.candidates
    ]
    yield _position(where, places)
    yield _lookup(where, places)


def _consumed(material: Material, where: str, examples: Sequence[RankingExample], legacy: bool) -> Finding:
    nobody, hits = frozenset[str](), []
    for number, example in enumerate(examples, 1):
        known = material.known(example.split).get(example.user_id, nobody)
        if not known.isdisjoint(example.candidates):
            met = [item for item in example.candidates if item in known and item != example.target_id]
            if met:
                hits.append(f"list {number}, user {example.user_id}: {met[0]}")
    meaning = (
        "The reference's draw excludes only the window, so that a right answer may count as wrong; figures on such "
        "lists compare with published ones and with nothing else."
        if legacy
        else "A negative the user did choose is no negative, and a model that knows the user is punished for knowing: "
        "draw the file again with `mllmrec candidates --overwrite`."
    )
    weight: Verdict = "warning" if legacy else "leak"
    return judged(CONSUMED, where, len(examples), "lists", hits, weight, meaning=meaning)


def _position(where: str, places: Sequence[Place]) -> Finding:
    probability = evenness(places)
    if probability is None:
        few = f"fewer than {2 * EXPECTED_PER_CELL} lists of a length"
        return Finding(check=POSITION, where=where, found=few, verdict="not checked")
    uneven = probability < LEVEL
    return Finding(
        check=POSITION,
        where=where,
        total=len(places),
        noun="lists",
        found=f"chi-square p = {probability:.2g}",
        verdict="leak" if uneven else "ok",
        meaning="Targets don't stand everywhere equally often, so a model can win by place alone: draw the lists again "
        "with `mllmrec candidates`."
        if uneven
        else "",
        probability=probability,
    )


def _lookup(where: str, places: Sequence[Place]) -> Finding:
    attack = lookup_attack(places)
    if attack is None:
        return Finding(check=LOOKUP, where=where, found="no target occurs twice", verdict="not checked")
    works = attack.probability < LEVEL
    return Finding(
        check=LOOKUP,
        where=where,
        total=attack.tried,
        noun="places",
        found=f"{attack.hits / attack.tried:.1%} guessed, chance {attack.chance:.1%}, p = {attack.probability:.2g}",
        verdict="leak" if works else "ok",
        meaning="Where a target stands follows from which item it is, so the order wasn't drawn for each example: draw "
        "the lists again with `mllmrec candidates`."
        if works
        else "",
        probability=attack.probability,
    )


def _belonging(material: Material, file: CandidateFile) -> Finding:
    hits = [
        f"list {number}, user {example.user_id}"
        for number, example in enumerate(file.examples, 1)
        if not _is_window(material, example)
    ]
    return judged(
        CONTENT,
        file.path.name,
        len(file.examples),
        "lists",
        hits,
        "wrong",
        meaning="The list's user, history and target stand on no line of its split, or its example id is another's: it "
        "was drawn from other data. Draw it again with `mllmrec candidates --overwrite`.",
    )


def _form(file: CandidateFile) -> Finding:
    """Lists with repeated candidates, without their target (which rerank lists may lack), or that come twice."""
    may_lack, seen, hits = protocol_of(file.path).startswith(("rr", "full")), set[str](), list(file.odd)
    for number, example in enumerate(file.examples, 1):
        if len(set(example.candidates)) < len(example.candidates):
            hits.append(f"list {number} holds a candidate twice")
        elif example.target_id not in example.candidates and not may_lack:
            hits.append(f"list {number} lacks its target {example.target_id}")
        elif example.example_id in seen:
            hits.append(f"list {number} is the second one of example {example.example_id}")
        seen.add(example.example_id)
    return judged(
        CONTENT,
        f"{file.path.name}, form",
        len(file.examples) + len(file.odd),
        "lists",
        hits,
        "wrong",
        meaning="Each list should hold its target and distinct negatives once: draw the file again with `mllmrec "
        "candidates --overwrite`.",
    )


def _changed(material: Material, path: Path) -> Iterator[Finding]:
    if attempt(path, was_changed, material.wrong):
        yield Finding(
            check=CONTENT,
            where=path.name,
            found="its bytes aren't those of its manifest",
            verdict="warning",
            meaning="The file was changed after it was frozen, so its name no longer says how it was drawn.",
        )


def _foreign_target_in_history(material: Material, file: CandidateFile) -> Finding:
    """Histories that hold the target though the user's line doesn't; repeats on the line are told with the split."""
    hits = [
        f"list {number}, user {example.user_id}: {example.target_id}"
        for number, example in enumerate(file.examples, 1)
        if example.target_id in example.history and not _is_window(material, example)
    ]
    return judged(
        TARGET_IN_HISTORY,
        file.path.name,
        len(file.examples),
        "lists",
        hits,
        "leak",
        meaning="The answer stands in the prompt, and the user's line has no such repeat: draw the file again.",
    )


def _is_window(material: Material, example: RankingExample) -> bool:
    """Whether an example is what its id says and its window stands on a line of its user in its split.

    Where the split's file is missing or can't be read, the lines are taken on trust.
    """
    if example_id(example.user_id, example.target_id, example.history) != example.example_id:
        return False
    users = material.all_lines.get(example.split)
    return users == {} or one_holds((users or {}).get(example.user_id, []), (*example.history, example.target_id))
