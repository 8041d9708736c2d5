"""Candidate lists under audit: what a list gives away about its target by its negatives or by its order.

Our draws leave out all that is known of the user at that split and shuffle each list, so that none of this happens
unless a file was changed or made elsewhere. Negatives of the reference's draw, and of lists that others made, may be
items that the user did consume; the names of such files say so, and the finding is a warning.

A name such as `test_uni9_w10_s42.jsonl` says which lists a file holds, so they are drawn again and compared. The lists
of a retriever aren't retrieved again but held against their rules: as many items as the name says, the target among
them where it has to be, and nothing that is known of the user.

Where all lists have the same negatives, whoever has seen a few of them knows the negatives by heart, and the target is
what is new. Lists drawn at random share some items, the more the smaller the catalogue is, so this is judged only
where they could well differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from mllmrec.data.auditing.chance import EXPECTED_PER_CELL, LEVEL, TargetSlot, evenness, lookup_attack
from mllmrec.data.auditing.findings import (
    CONSUMED,
    CONTENT,
    DRAW,
    LOOKUP,
    POSITION,
    SAME_NEGATIVES,
    TARGET_IN_HISTORY,
    AuditVerdict,
    Finding,
    judged,
)
from mllmrec.data.auditing.material import SPLITS, CandidateFile, Material, attempt
from mllmrec.data.candidates.drawing import draw_version, freeze, questions
from mllmrec.data.candidates.files import ListRules, contradiction
from mllmrec.data.candidates.legacy import draw_legacy
from mllmrec.data.candidates.negatives import VERSIONS
from mllmrec.data.candidates.protocols import ListsName
from mllmrec.data.sequences import Interactions
from mllmrec.records import RankingExample
from mllmrec.storage.manifests import Manifest

OTHERS = {
    "legacy": "The reference's draw excludes only the window, so that a right answer may count as wrong; figures on "
    "such lists compare with published ones and with nothing else.",
    "foreign": "Whoever made these lists didn't exclude all that is known of the user, so that a right answer may "
    "count as wrong; figures on such lists compare with others on the same lists and with nothing else.",
}
REPEATED_SHARE, REPEATED_RATIO = 0.01, 3

OTHERWISE = (
    "The lists aren't those that the file's name promises, because they were edited, drawn from other data, or named "
    "after another draw: figures on them mean something else. Draw the file again with `mllmrec candidates "
    "--overwrite` (`mllmrec retrieve` for lists of a retriever), or give it a name of your own."
)

FEWEST_LISTS, ROOM, MOST = 20, 5, 0.5
"""The fewest lists to judge; the fewest items to draw from, for each negative; the share of lists that may be alike."""
FOR_ONE_CHANGE = 5
"""The length from which on one negative in ten may differ, since nobody's negatives hold what that user has met."""


def check_file(material: Material, file: CandidateFile) -> Iterator[Finding]:
    """All that can be said of one candidate file of ours."""
    yield _belonging(material, file)
    yield _form(file)
    yield from _changed(material, file.path)
    yield _foreign_target_in_history(material, file)
    yield _repeated_targets(file)
    yield from check_draw(material, file)
    legacy, foreign = file.protocol.legacy, file.protocol.foreign
    yield from check_lists(material, file.path.name, file.examples, legacy=legacy, foreign=foreign)


def check_lists(
    material: Material, where: str, examples: Sequence[RankingExample], *, legacy: bool, foreign: bool = False
) -> Iterator[Finding]:
    """Negatives and order of lists, wherever they come from."""
    yield _consumed(material, where, examples, OTHERS["legacy" if legacy else "foreign"] if legacy or foreign else "")
    slots = [
        TargetSlot(
            example_id=example.example_id,
            target_id=example.target_id,
            position=example.candidates.index(example.target_id),
            length=len(example.candidates),
        )
        for example in examples
        if example.target_id in example.candidates
    ]
    yield _position(where, slots)
    yield _lookup(where, slots)


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
    weight: AuditVerdict = "warning" if whose else "leak"
    return judged(CONSUMED, where, len(examples), "lists", hits, weight, meaning=meaning)


def _position(where: str, slots: Sequence[TargetSlot]) -> Finding:
    probability = evenness(slots)
    if probability is None:
        few = f"fewer than {2 * EXPECTED_PER_CELL} lists of a length"
        return Finding(check=POSITION, where=where, result=few, verdict="not checked")
    uneven = probability < LEVEL
    return Finding(
        check=POSITION,
        where=where,
        total=len(slots),
        noun="lists",
        result=f"chi-square p = {probability:.2g}",
        verdict="leak" if uneven else "ok",
        meaning="Targets don't stand everywhere equally often, so a model can win by place alone: draw the lists again "
        "with `mllmrec candidates`."
        if uneven
        else "",
        probability=probability,
    )


def _lookup(where: str, slots: Sequence[TargetSlot]) -> Finding:
    attack = lookup_attack(slots)
    if attack is None:
        return Finding(check=LOOKUP, where=where, result="no target occurs twice", verdict="not checked")
    works = attack.probability < LEVEL
    return Finding(
        check=LOOKUP,
        where=where,
        total=attack.tried,
        noun="places",
        result=f"{attack.hits / attack.tried:.1%} guessed, chance {attack.chance:.1%}, p = {attack.probability:.2g}",
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
    rules = ListRules.of(file.examples, file.protocol)
    faults = ((number, rules.fault(example)) for number, example in enumerate(file.examples, 1))
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
            result=f"contradicts its manifest: {denied}",
            verdict="wrong",
            meaning="The file isn't what was frozen, so its name no longer says how it was drawn: no ranking takes it.",
        )


def _foreign_target_in_history(material: Material, file: CandidateFile) -> Finding:
    """Histories that hold the target though the user's line doesn't; repeats on the line are a finding on the split."""
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

    Where people come back to things, they do so at any time, so that the last items of histories show how often.
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


def check_draw(material: Material, file: CandidateFile) -> Iterator[Finding]:
    """The finding on a file that is named our way; none on another."""
    named = ListsName.parse(file.path)
    if named is None:
        return
    if not _is_readable(material, named):
        yield Finding(check=DRAW, where=file.path.name, result="drawn from what can't be read", verdict="not checked")
        return
    hits = attempt(file.path, lambda _: _least(material, named, file), material.wrong)
    if hits is not None:
        yield judged(DRAW, file.path.name, len(file.examples), "lists", hits, "wrong", meaning=OTHERWISE)


def _least(material: Material, named: ListsName, file: CandidateFile) -> list[str]:
    """What differs from the draw of the version in the manifest; without one, of the version that fits best."""
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
    """Whether all that a draw depends on was read; what wasn't is a finding of its own."""
    interactions, there = material.interactions, material.files
    missing = [split for split in SPLITS if not interactions.lines(split)]
    closed = any(there.split(split).exists() for split in missing)
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


def check_same_negatives(where: str, examples: Sequence[RankingExample], num_items: int) -> Finding:
    """Whether most lists take their negatives from the same few items."""
    lists = [frozenset(example.candidates) - {example.target_id} for example in examples]
    length = max(map(len, lists), default=0)
    if len(lists) < FEWEST_LISTS or num_items < ROOM * length:
        few = f"fewer than {FEWEST_LISTS} lists, or than {ROOM} items for each negative"
        return Finding(check=SAME_NEGATIVES, where=where, result=few, verdict="not checked")
    changes = max(1, length // 10) if length >= FOR_ONE_CHANGE else 0
    counts = Counter(item for items in lists for item in items)
    common = {item for item, _ in counts.most_common(length + changes)}
    alike = [number for number, items in enumerate(lists, 1) if items and len(items & common) >= len(items) - changes]
    return judged(
        SAME_NEGATIVES,
        where,
        len(lists),
        "lists",
        [f"list {number}" for number in alike] if len(alike) > MOST * len(lists) else [],
        "leak",
        meaning="The negatives are the same from list to list, so that the target is the one candidate that isn't "
        "known from the others: draw the lists again with `mllmrec candidates`.",
    )
