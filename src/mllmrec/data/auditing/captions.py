"""Captions under audit: a caption that names a title tells more than the image shows, and so does a stray trace."""

from __future__ import annotations

from collections.abc import Iterator

from mllmrec.data.auditing.findings import CAPTIONS, CONTENT, LATER_HINTS, Finding, judged
from mllmrec.data.auditing.material import Material


def check(material: Material) -> Iterator[Finding]:
    """Captions that name their own title, that hold a trace, and entries that are no captions."""
    captions, odd = material.captions.captions, material.captions.odd
    name = material.workspace.captions(material.dataset).name
    if not captions and not odd:
        return
    yield judged(
        CONTENT,
        name,
        len(captions) + len(odd),
        "captions",
        odd,
        "wrong",
        meaning="Each caption should be {title, caption}: make the file again with `mllmrec caption`.",
    )
    own = [item for item, text in captions.items() if material.naming.names(text, item)]
    yield judged(
        CAPTIONS,
        name,
        len(captions),
        "captions",
        [f"item {item}" for item in own],
        "warning",
        meaning="A caption that repeats its title adds nothing and hides what the image alone is worth; "
        "`mllmrec caption` asks again where a title is named.",
    )
    traced = [f"item {item}" for item, text in captions.items() if material.trace_texts.within(text)]
    yield judged(
        LATER_HINTS,
        name,
        len(captions),
        "captions",
        traced,
        "leak",
        meaning="A training trace stands in a caption, and captions are shown in every prompt: make them again.",
    )
