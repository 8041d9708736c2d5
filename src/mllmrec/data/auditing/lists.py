"""Candidate lists under audit: what a list gives away about its target by its negatives or by its order.

Ours leave out all that is known of the user at that split and are shuffled for each example, so none of this can
happen unless a file was changed or made elsewhere. Negatives of the reference's draw, and of lists
that others made, may be items that the user did consume; their names say whose draw it is, so that is only told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from mllmrec.data.auditing import redraws
from mllmrec.data.auditing.chance import EXPECTED_PER_CELL, LEVEL, Place, evenness, lookup_attack
from mllmrec.data.auditing.files import CandidateFile
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
from mllmrec.data.auditing.material import Material, attempt
from mllmrec.data.candidate_files import contradiction
from mllmrec.data.list_faults import Form
from mllmrec.data.protocols import protocol_of
from mllmrec.records import RankingExample

OTHERS = {
    "legacy": "The reference's draw excludes only the window, so that a right answer may count as wrong; figures on "
    "such lists compare with published ones and with nothing else.",
    "foreign": "Whoever made these lists didn't exclude all that is known of the user, so that a right answer may "
    "count as wrong; figures on such lists compare with others on the same lists and with nothing else.",
}
REPEATED_SHARE, REPEATED_RATIO = 0.01, 3


def check_file(material: Material, file: CandidateFile) -> Iterator[Finding]:
    """All that can be said of one candidate file of ours."""
    yield _belonging(material, file)
    yield _form(file)
    yield from _changed(material, file.path)
    yield _foreign_target_in_history(material, file)
    yield _repeated_targets(file)
    yield from redraws.check(material, file)
    yield from check_lists(material, file.path.name, file.examples, legacy=file.legacy, foreign=file.foreign)


def check_lists(
    material: Material, where: str, examples: Sequence[RankingExample], *, legacy: bool, foreign: bool = False
) -> Iterator[Finding]:
    """Negatives and order of lists, wherever they come from."""
    yield _consumed(material, where, examples, OTHERS["legacy" if legacy else "foreign"] if legacy or foreign else "")
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


def _consumed(material: Material, where: str, examples: Sequence[RankingExample], whose: str) -> Finding:
    """Negatives that are known of the user: a leak unless the lists bear the name of somebody else's draw."""
    nobody, hits = frozenset[str](), []
    for number, example in enumerate(examples, 1):
        known = material.known(example.split).get(example.user_id, nobody)
        if not known.isdisjoint(example.candidates):
            met = [item for item in example.candidates if item in known and item != example.target_id]
            if met:
                hits.append(f"list {number}, user {example.user_id}: {met[0]}")
    meaning = (
        whose
        or "A negative the user did choose is no negative, and a model that knows the user is punished for knowing: "
        "draw the file again with `mllmrec candidates --overwrite`."
    )
    weight: Verdict = "warning" if whose else "leak"
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
    """Lists that aren't of the dataset."""
    hits = [
        f"list {number}, user {example.user_id}, {fault}"
        for number, example in enumerate(file.examples, 1)
        if (fault := material.membership.fault(example))
    ]
    return judged(
        CONTENT,
        file.path.name,
        len(file.examples),
        "lists",
        hits,
        "wrong",
        meaning="A list names what its split doesn't hold: it was drawn from other data. Draw it again with `mllmrec "
        "candidates --overwrite`.",
    )


def _form(file: CandidateFile) -> Finding:
    """Lists with repeated candidates, without their target (which some may lack), of one item, or that come twice."""
    form = Form.of(file.examples, protocol_of(file.path))
    faults = ((number, form.fault(example)) for number, example in enumerate(file.examples, 1))
    hits = file.odd + [f"list {number} {fault}" for number, fault in faults if fault]
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
    if denied := attempt(path, contradiction, material.wrong):
        yield Finding(
            check=CONTENT,
            where=path.name,
            found=f"contradicts its manifest: {denied}",
            verdict="wrong",
            meaning="The file isn't what was frozen, so its name no longer says how it was drawn: no ranking takes it.",
        )


def _foreign_target_in_history(material: Material, file: CandidateFile) -> Finding:
    """Histories that hold the target though the user's line doesn't; repeats on the line are told with the split."""
    hits = [
        f"list {number}, user {example.user_id}: {example.target_id}"
        for number, example in enumerate(file.examples, 1)
        if example.target_id in example.history and not material.membership.on_line(example)
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


def _repeated_targets(file: CandidateFile) -> Finding:
    """Targets that occur earlier in their windows far more often than the items just before them do.

    Where people come back to things, they do so at any time, so that the last items of histories tell how often.
    """
    windows = [(*example.history, example.target_id) for example in file.examples]
    hits = [f"list {number}: {window[-1]}" for number, window in enumerate(windows, 1) if window[-1] in window[:-1]]
    usual = sum(window[-2] in window[:-2] for window in windows if len(window) > 1)
    planted = len(hits) >= REPEATED_SHARE * len(windows) and len(hits) > REPEATED_RATIO * usual
    return judged(
        TARGET_IN_HISTORY,
        f"{file.path.name}, share",
        len(windows),
        "lists",
        hits if planted else (),
        "leak",
        meaning=f"The answer stands in the prompt far more often than people come back to things here ({usual:,} of "
        "the items before the targets do): targets were chosen from histories, or written into them.",
    )
