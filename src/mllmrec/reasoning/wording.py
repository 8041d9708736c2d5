"""How the profile writer says things: facets in the three places where they stand, lists, and turns of phrase.

Every turn of phrase has several wordings, so that traces aren't all alike; one is drawn for each history. Wordings that
happen to spell a title of the catalogue ("fall", "safe") are put aside when the writer is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mllmrec.reasoning.facets import Facet, Kind

SHOWN: Mapping[Kind, str] = {
    "attribute": "{be} of the {name} {text}",
    "era": "{come} from the {text}",
    "form": "{have} {text}",
    "title": "{have} {text} in the title",
    "picture": "{have} a picture described with {text}",
}
AS_NOUN: Mapping[Kind, str] = {
    "attribute": "the {name} {text}",
    "era": "the {text}",
    "form": "{text}",
    "title": "titles with {text}",
    "picture": "pictures described with {text}",
}
AS_CRITERION: Mapping[Kind, str] = {
    "attribute": "of the {name} {text}",
    "era": "from the {text}",
    "form": "with {text}",
    "title": "with {text} in the title",
    "picture": "with a picture described with {text}",
}

TURNS = {
    "spread": (
        "the {count} choices have little in common",
        "no single trait runs through the {count} choices",
        "the {count} choices are a mixed lot",
    ),
    "keeps": (
        "{latest} keeps to {nouns}, so the user is likely to go on in that way",
        "with {latest} the user stays with {nouns} and probably wants more of the same",
        "{latest} confirms the interest in {nouns}, and the next choice should go the same way",
    ),
    "leaves": (
        "{latest} turns away from {nouns}{own}, and the next choice may follow it or come back",
        "{latest} is a change from {nouns}{own}, after which the user either explores further or returns",
    ),
    "open": (
        "the user is exploring, and {latest} is the best guide to what follows{own}",
        "nothing but {latest} points the way{own}, so the user seems to be sampling",
    ),
    "fading": (
        "{nouns} had a place earlier but not in the last {count} choices",
        "interest in {nouns} seems to be over, as the last {count} choices show none of it",
    ),
    "profile": (
        "most likely {what}",
        "the user will probably choose {what}",
        "a good match would be {what}",
    ),
}


def shown(facet: Facet, count: int) -> str:
    """What `count` items do that show a facet: `come from the 1990s`."""
    verbs = (
        {"be": "is", "come": "comes", "have": "has"} if count == 1 else {"be": "are", "come": "come", "have": "have"}
    )
    return SHOWN[facet.kind].format(name=facet.name, text=_text(facet), **verbs)


def nouns(facets: Sequence[Facet]) -> str:
    """Facets as what somebody is interested in, like ones together: `the genre Crime and Drama and the 1990s`."""
    return listed(_together(facets, AS_NOUN))


def criteria(facets: Sequence[Facet]) -> str:
    """Facets as what an item must be: `of the genre Crime and from the 1990s`."""
    return listed(_together(facets, AS_CRITERION))


def listed(parts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1]))) if parts else ""


def _together(facets: Sequence[Facet], sayings: Mapping[Kind, str]) -> list[str]:
    texts: dict[tuple[Kind, str], list[str]] = {}
    for facet in facets:
        texts.setdefault(facet.source, []).append(_text(facet))
    return [sayings[kind].format(name=name, text=listed(own)) for (kind, name), own in texts.items()]


def _text(facet: Facet) -> str:
    return f'"{facet.text}"' if facet.kind in ("title", "picture") else facet.text
