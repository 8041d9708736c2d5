"""Copied users and twins of the target under audit.

People who walk through the same pages leave the same windows, the more often the shorter windows are. How many such
windows chance and likeness bring is measured where nothing can leak: by how often the last training window of a user
stands on another user's line. Later windows that do so more often than that were copied. A window still counts when
one item of its history was replaced, left out or put in.

A twin is another item with the target's title, or with an image of the same bytes, in the user's own line. Who has met
a twin has as good as met the target, and a model that goes by titles or images reads the answer off. An item that is
catalogued twice is met by chance as well; how often is measured at the last item before the target. A placeholder for
missing images makes twins of many items, and of both alike.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mllmrec.data.auditing.chance import LEVEL, at_least
from mllmrec.data.auditing.findings import DUPLICATES, TWINS, AuditVerdict, Finding, judged
from mllmrec.data.auditing.material import SPLITS, Material
from mllmrec.data.auditing.splits import lines_of, name_of
from mllmrec.data.item_files import image_names
from mllmrec.data.sequences import Catalogue, Line
from mllmrec.records import Split
from mllmrec.storage.workspace import sha256

SHORTEST_CHANGED = 5
"""Shorter windows count only unchanged, since too many of them differ by one item."""
TIMES_EXPECTED = 2.0
CONTROL = "likeness"
EARLIER: tuple[tuple[Split, tuple[Split, ...]], ...] = (("train", ("valid", "test")), ("valid", ("test",)))
Window = tuple[str, ...]

LEAST_SHARE, TWINS_EXPECTED = 0.01, 2
Groups = Mapping[str, frozenset[str]]
"""The twins of each item that has some, itself included."""


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A window of a user that stands on line `line` of `owner`; `whole` says that the line ends with it unchanged."""

    user_id: str
    owner: str
    line: int
    whole: bool = False


@dataclass(kw_only=True)
class Windows:
    """The last windows of many lines, to be looked for on other users' lines.

    A copy with one change has either the last half of the window or the first one unchanged.
    """

    length: int
    by_end: dict[Window, list[tuple[str, str, Window]]] = field(default_factory=lambda: defaultdict(list))
    by_start: dict[Window, list[tuple[str, str, Window]]] = field(default_factory=lambda: defaultdict(list))
    totals: dict[str, int] = field(default_factory=dict)

    @property
    def half(self) -> int:
        return self.length // 2 if self.length >= SHORTEST_CHANGED else self.length

    def add(self, kind: str, lines: Sequence[Line]) -> None:
        """Look for the last window of each line; `on` reports the copies of them under `kind`."""
        self.totals[kind] = 0
        for line in lines:
            if len(line.items) >= self.length:
                window = line.items[-self.length :]
                self.totals[kind] += 1
                self.by_end[window[-self.half :]].append((kind, line.user_id, window))
                if self.half < self.length:
                    self.by_start[window[: self.length - self.half]].append((kind, line.user_id, window))

    def on(self, lines: Sequence[Line]) -> dict[str, list[Copy]]:
        """The windows that stand on `lines` of other users, by kind."""
        copies: dict[str, dict[Copy, None]] = {kind: {} for kind in self.totals}
        start_length = self.length - self.half
        for line in lines:
            items = line.items
            for end in range(self.half, len(items) + 1):
                for kind, user, window in self.by_end.get(items[end - self.half : end], ()):
                    if user != line.user_id and self._ends(window, items, end):
                        whole = end == len(items) and items[-self.length :] == window
                        copy = Copy(user_id=user, owner=line.user_id, line=line.line_index, whole=whole)
                        copies[kind][copy] = None
            for start in range(len(items) - start_length if start_length else 0):
                for kind, user, window in self.by_start.get(items[start : start + start_length], ()):
                    if user != line.user_id and self._starts(window, items, start):
                        copies[kind][Copy(user_id=user, owner=line.user_id, line=line.line_index)] = None
        return {kind: list(own) for kind, own in copies.items()}

    def _ends(self, window: Window, items: Window, end: int) -> bool:
        """Whether the window stands before `end`, at most one item changed."""
        if self.half == self.length:
            return True
        lengths = (self.length, self.length - 1, self.length + 1)
        return any(length <= end and one_change(window, items[end - length : end]) for length in lengths)

    def _starts(self, window: Window, items: Window, start: int) -> bool:
        lengths = (self.length, self.length - 1, self.length + 1)
        return any(one_change(window, items[start : start + length]) for length in lengths)


def one_change(window: Window, other: Window) -> bool:
    """Whether two sequences have the same last item and differ in at most one item, replaced, left out or put in.

    >>> one_change(("a", "b", "c"), ("a", "x", "c")), one_change(("a", "b", "c"), ("b", "c"))
    (True, True)
    >>> one_change(("a", "b", "c"), ("a", "b", "x")), one_change(("a", "b", "c"), ("x", "y", "c"))
    (False, False)
    """
    if not other or window[-1] != other[-1] or abs(len(window) - len(other)) > 1:
        return False
    same = next((at for at, (a, b) in enumerate(zip(window, other, strict=False)) if a != b), None)
    if same is None:
        return True
    rest, others = window[same:], other[same:]
    if len(rest) == len(others):
        return rest[1:] == others[1:]
    return rest[1:] == others if len(rest) > len(others) else rest == others[1:]


def check_copies(material: Material) -> Iterator[Finding]:
    """Windows of later splits on earlier lines of other users."""
    for earlier, later in EARLIER:
        lines, windows = lines_of(material, earlier), Windows(length=material.window)
        if lines and any(lines_of(material, split) for split in later):
            windows.add(CONTROL, lines)
            for split in later:
                windows.add(split, lines_of(material, split))
            copies = windows.on(lines)
            for split in later:
                where = f"{name_of(material, earlier)} against {name_of(material, split)}, other users"
                yield _copies_finding(windows.totals, copies, earlier, split, where)


def _copies_finding(
    totals: dict[str, int], copies: dict[str, list[Copy]], earlier: Split, later: Split, where: str
) -> Finding:
    """A line that holds a later window says nothing of likeness, since the copy of a user is alike throughout."""
    total, users = totals[later], {copy.user_id: copy for copy in copies[later]}
    copied_lines = {(copy.user_id, copy.line) for copy in copies[later]}
    alike = {copy.user_id for copy in copies[CONTROL] if (copy.user_id, copy.line) not in copied_lines}
    share = min(1.0, (len(alike) + 1) / (totals[CONTROL] + 1))
    probability = at_least(len(users), total, share)
    if probability < LEVEL and len(users) > TIMES_EXPECTED * share * total:
        weight: AuditVerdict = "leak" if earlier == "train" else "warning"
        meaning = (
            "The history and the target of these users stand under other names, far more often than users are alike: "
            "who learns from the earlier file has seen the answers. Remove the copied lines."
        )
    else:
        users = {user: copy for user, copy in users.items() if copy.whole}
        weight = "warning"
        meaning = "Two users have the same history and target: chance where windows are short, a copied account else."
    hits = [f"user {user} of {later} and user {copy.owner} of {earlier}" for user, copy in users.items()]
    return judged(DUPLICATES, where, total, "windows", hits, weight, meaning=meaning)


def check_twins(material: Material) -> Iterator[Finding]:
    """The lines of each split whose target has a twin before it."""
    images = material.files.images
    kinds = {"title": same_title(material.interactions.catalogue), "image": same_image(images)}
    for kind, groups in kinds.items():
        for split in SPLITS:
            if lines_of(material, split) and (groups or kind == "title"):
                yield _twins_finding(material, split, groups, kind)


def same_title(catalogue: Catalogue) -> Groups:
    """Items of one title, whatever its case and spaces."""
    return _groups((" ".join(item.title.casefold().split()), key) for key, item in catalogue.items() if item.title)


def same_image(folder: Path) -> Groups:
    """Items whose images are the same bytes; only files of one size are read."""
    sizes = defaultdict[int, list[tuple[str, Path]]](list)
    for item, name in image_names(folder).items():
        if (path := folder / name).is_file():
            sizes[path.stat().st_size].append((item, path))
    return _groups((sha256(path), item) for files in sizes.values() if len(files) > 1 for item, path in files)


def _groups(pairs: Iterator[tuple[str, str]]) -> Groups:
    members = defaultdict[str, set[str]](set)
    for key, item in pairs:
        members[key].add(item)
    return {item: frozenset(items) for items in members.values() if len(items) > 1 for item in items}


def _twins_finding(material: Material, split: Split, groups: Groups, kind: str) -> Finding:
    lines = [line for line in lines_of(material, split) if len(line.items) > 2]
    hits, alike = [], 0
    for line in lines:
        known = _known(material, split, line)
        target, last = line.items[-1], line.items[-2]
        if twins := (groups.get(target, frozenset()) - {target}) & known:
            hits.append(f"line {line.line_index + 1}, user {line.user_id}: {target} and {min(twins)}")
        alike += bool((groups.get(last, frozenset()) - {last}) & known)
    where = f"{name_of(material, split)}, {kind}s"
    if len(hits) <= TWINS_EXPECTED * alike:
        result = f"{len(hits):,}, {alike:,} at the last items before them" if hits else "none"
        return Finding(check=TWINS, where=where, total=len(lines), noun="lines", result=result, verdict="ok")
    unlikely = at_least(len(hits), len(lines), (alike + 1) / (len(lines) + 1)) < LEVEL
    weight: AuditVerdict = (
        "leak" if unlikely and len(hits) >= LEAST_SHARE * len(lines) and split != "train" else "warning"
    )
    return judged(
        TWINS,
        where,
        len(lines),
        "lines",
        hits,
        weight,
        meaning=f"The user has met another item of the target's {kind}, more often than such items are met in a row "
        "else, so the list is read as if the target were known: give twins one id.",
    )


def _known(material: Material, split: Split, line: Line) -> frozenset[str]:
    """What the user has met before the target: on this line, and on those of earlier splits."""
    before = SPLITS[: SPLITS.index(split)]
    earlier = [own for name in before for own in material.lines_by_user[name].get(line.user_id, [])]
    return frozenset(line.items[:-1]).union(*(own.items for own in earlier))
