"""Bare ids under audit: the target's id as a word of its own, in a trace or in a caption of the history.

`[ITEM_12]` and `item 12` are names wherever they stand (`naming.py`). A bare 12 may be any number, so that such words
are counted: numbers in texts hit the target's id as often as that item is a target. An id of letters and digits is no
other word, and one is enough.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mllmrec.data.auditing.chance import LEVEL, events
from mllmrec.data.auditing.findings import BARE_IDS, Finding, judged
from mllmrec.data.auditing.material import SPLITS, Material
from mllmrec.data.auditing.splits import lines_of, name_of

_BARE = re.compile(r"(?<![\w.-])[A-Za-z0-9](?:[\w.-]*\w)?")
SUSPECT = 0.01


class Text(NamedTuple):
    """Ids that words about a user's history hold, of which `target_id` comes next."""

    where: str
    target_id: str
    ids: frozenset[str]


def check(material: Material) -> Iterator[Finding]:
    """Kept traces of each file, and the captions of each split's windows."""
    catalogue, captions = material.interactions.catalogue, material.captions.captions
    bare = Words(material)
    titled = {item: ids for item in catalogue if (ids := bare.ids(catalogue.title(item)))}
    captioned = {item: ids for item, text in captions.items() if (ids := bare.ids(text))}
    nothing = frozenset[str]()
    for file in material.traces:
        texts = [
            Text(
                f"record {row.number}, user {row.user_id}",
                row.target_id,
                bare.ids(row.reasoning).difference(row.history, *(titled.get(item, nothing) for item in row.history)),
            )
            for row in file.rows
            if row.kept
        ]
        yield _finding(file.path.name, "kept traces", texts)
    for split in SPLITS if captions else ():
        windows = [line.items[-material.window :] for line in lines_of(material, split)]
        texts = [
            Text(
                f"line of target {target}",
                target,
                nothing.union(*(captioned.get(item, nothing) for item in history)).difference(history),
            )
            for *history, target in windows
            if len(history) == material.window - 1
        ]
        yield _finding(f"{name_of(material, split)}, captions of the history", "windows", texts)


class Words:
    """The words that are ids of one dataset's items. An id without a digit may be any word and is none."""

    def __init__(self, material: Material) -> None:
        lines = (line for split in SPLITS for line in material.interactions.lines(split))
        items = frozenset(material.interactions.catalogue).union(*(line.items for line in lines))
        self._ids = frozenset(item for item in items if any(map(str.isdigit, item)))

    def ids(self, text: str) -> frozenset[str]:
        return self._ids.intersection(_BARE.findall(text))


def _finding(where: str, noun: str, texts: Sequence[Text]) -> Finding:
    """A leak where ids stand that are nothing else, or numbers more often than chance."""
    asked = Counter(text.target_id for text in texts)
    hits = [text for text in texts if text.target_id in text.ids]
    expected = sum(asked[item] for text in texts for item in text.ids) / max(1, len(texts))
    sure = [text for text in hits if any(map(str.isalpha, text.target_id))]
    probability = events(len(hits), expected)
    if hits and not sure and probability >= SUSPECT:
        found = f"{len(hits):,} numbers, {expected:.1f} by chance"
        return Finding(check=BARE_IDS, where=where, total=len(texts), noun=noun, found=found, verdict="ok")
    return judged(
        BARE_IDS,
        where,
        len(texts),
        noun,
        [f"{text.where}: {text.target_id}" for text in hits],
        "leak" if sure or probability < LEVEL else "warning",
        meaning="The id of the right answer stands there as a word, more often than numbers explain: write the text "
        "anew without it.",
    )
