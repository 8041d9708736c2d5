"""Twins under audit: another item of the target's title, or with an image of the same bytes, in the user's own line.

Who has met a twin has as good as met the target, and a model that goes by titles or images reads the answer off. An
item that is catalogued twice is met by chance as well; how often is seen at the last item before the target, of which
nobody asks anything. A placeholder for missing images makes twins of many items, and of both alike.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from mllmrec.artifacts import sha256
from mllmrec.data.auditing.chance import LEVEL, at_least
from mllmrec.data.auditing.findings import TWINS, Finding, Verdict, judged
from mllmrec.data.auditing.material import SPLITS, Material
from mllmrec.data.auditing.splits import lines_of, name_of
from mllmrec.data.images_folder import image_names
from mllmrec.data.sequences import Catalogue, Line
from mllmrec.records import Split

LEAST_SHARE, TIMES_EXPECTED = 0.01, 2
Groups = Mapping[str, frozenset[str]]
"""The twins of each item that has some, itself included."""


def check(material: Material) -> Iterator[Finding]:
    """The lines of each split whose target has a twin before it."""
    images = material.workspace.images(material.dataset)
    kinds = {"title": same_title(material.interactions.catalogue), "image": same_image(images)}
    for kind, groups in kinds.items():
        for split in SPLITS:
            if lines_of(material, split) and (groups or kind == "title"):
                yield _finding(material, split, groups, kind)


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


def _finding(material: Material, split: Split, groups: Groups, kind: str) -> Finding:
    lines = [line for line in lines_of(material, split) if len(line.items) > 2]
    hits, alike = [], 0
    for line in lines:
        known = _known(material, split, line)
        target, last = line.items[-1], line.items[-2]
        if twins := (groups.get(target, frozenset()) - {target}) & known:
            hits.append(f"line {line.line_index + 1}, user {line.user_id}: {target} and {min(twins)}")
        alike += bool((groups.get(last, frozenset()) - {last}) & known)
    where = f"{name_of(material, split)}, {kind}s"
    if len(hits) <= TIMES_EXPECTED * alike:
        found = f"{len(hits):,}, {alike:,} at the last items before them" if hits else "none"
        return Finding(check=TWINS, where=where, total=len(lines), noun="lines", found=found, verdict="ok")
    unlikely = at_least(len(hits), len(lines), (alike + 1) / (len(lines) + 1)) < LEVEL
    weight: Verdict = "leak" if unlikely and len(hits) >= LEAST_SHARE * len(lines) and split != "train" else "warning"
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
    earlier = [each for name in before for each in material.lines_by_user[name].get(line.user_id, [])]
    return frozenset(line.items[:-1]).union(*(each.items for each in earlier))
