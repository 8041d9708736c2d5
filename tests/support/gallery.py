"""A made-up gallery of captioned items in six themes, users who keep to one, and traces of known kind about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from traces import own
from workspaces import tsv, write_dataset

from mllmrec.data.sequences import Catalogue
from mllmrec.records import Item, Trace, example_id
from mllmrec.storage.workspace import Workspace, write_json

DATASET, WINDOW = "gallery", 5
THEMES = {
    "harbour": ("boats", "ropes", "anchors", "seagulls", "lighthouses", "nets"),
    "desert": ("dunes", "camels", "cactuses", "mesas", "sandstorms", "canyons"),
    "city": ("skyscrapers", "taxis", "billboards", "tramways", "crosswalks", "rooftops"),
    "forest": ("pines", "mosses", "ferns", "mushrooms", "antlers", "brooks"),
    "kitchen": ("kettles", "spoons", "ovens", "flour", "teapots", "aprons"),
    "space": ("rockets", "planets", "comets", "astronauts", "craters", "satellites"),
}
PER_THEME, USERS_PER_THEME = 8, 12
SYLLABLES = ("ba", "do", "fi", "gu", "ka", "le", "mo", "nu", "pa", "ri", "so", "tu")
GENERIC = (
    "Step 1: The user enjoys a variety of good things.\n"
    "Step 2: The next choice will be another good thing.\n"
    "Step 3: (1) good quality; (2) broad appeal; (3) a pleasant mood\n"
    "Step 4: Something good that fits the usual taste."
)


def made_up(number: int) -> str:
    """A word of three syllables that nothing else has."""
    parts = (number // 144 % 12, number // 12 % 12, number % 12)
    return "".join(SYLLABLES[part] for part in parts)


def item_id(theme: int, number: int) -> str:
    return f"{theme + 1}{number:02d}"


def title(item: str) -> str:
    return f"{made_up(3 * int(item)).title()} {made_up(3 * int(item) + 1).title()} (1990)"


def caption(item: str) -> str:
    theme, number = int(item) // 100 - 1, int(item) % 100
    things = list(THEMES.values())[theme]
    shown = [things[(number + step) % len(things)] for step in ((0, 1, 3) if number < len(things) else (2, 5, 4))]
    mood = "quiet" if number % 2 else "busy"
    return (
        f"A {mood} view of {shown[0]} and {shown[1]} with a {detail(item)} stripe in front and {shown[2]} far behind."
    )


def detail(item: str) -> str:
    """A word that only this item's caption has."""
    return made_up(3 * int(item) + 2)


def items() -> list[str]:
    return [item_id(theme, number) for theme in range(len(THEMES)) for number in range(PER_THEME)]


def catalogue() -> Catalogue:
    return Catalogue([Item(item_id=item, title=title(item)) for item in items()])


def captions() -> dict[str, str]:
    return {item: caption(item) for item in items()}


def sequences() -> dict[str, list[str]]:
    """user -> the items of the train line, all of one theme; then comes one more for validation."""
    return {
        f"u{theme}-{user}": [
            item_id(theme, (user * step + user // 8 + step + place * step) % PER_THEME) for place in range(6)
        ]
        for theme in range(len(THEMES))
        for user in range(USERS_PER_THEME)
        for step in ((1, 3, 5, 7)[user % 4],)
    }


def make_gallery(root: Path) -> Workspace:
    """The gallery with captions, without traces."""
    lines = sequences()
    workspace = write_dataset(
        root,
        DATASET,
        titles="item,title\n" + "".join(f"{item},{title(item)}\n" for item in items()),
        train=tsv({user: line[:-1] for user, line in lines.items()}),
        valid=tsv(lines),
    )
    write_json(
        workspace.dataset(DATASET).captions,
        {item: {"title": title(item), "caption": caption(item)} for item in items()},
    )
    return workspace


def own_words(history: Sequence[str]) -> str:
    """Four steps about a history, without a word of the target."""
    return (
        f"Step 1: The user keeps to views with a {detail(history[0])} or {detail(history[1])} stripe.\n"
        f"Step 2: The latest choice has a {detail(history[-1])} stripe, and the next one goes on from there.\n"
        f"Step 3: (1) {caption(history[-1]).split()[4]}; (2) a stripe in front; (3) something far behind\n"
        f"Step 4: A view like that with the {detail(history[2])} stripe."
    )


def traces(write: Callable[[Trace], str] | None = None) -> list[Trace]:
    """A trace for each training window, by default in its own words."""
    blank = [trace_of(user, line[:4], line[4], "") for user, line in sequences().items()]
    return [replace(each, reasoning=write(each) if write else own_words(each.history)) for each in blank]


def write_traces(workspace: Workspace, written: Sequence[Trace]) -> None:
    """Our refined file."""
    rows = [own(each.user_id, " ".join((*each.history, each.target_id)), reasoning=each.reasoning) for each in written]
    write_json(workspace.dataset(DATASET).refined_cot, rows)


def trace_of(user: str, history: Sequence[str], target: str, reasoning: str) -> Trace:
    key = example_id(user, target, history)
    return Trace(example_id=key, user_id=user, history=tuple(history), target_id=target, reasoning=reasoning)
