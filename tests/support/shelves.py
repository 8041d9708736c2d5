"""A made-up shop of sixty items on four shelves, people who keep to one of them, and writers that need no model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from workspaces import tsv

from mllmrec.data.sequences import Catalogue, is_held_out
from mllmrec.models.base import Reply, Request
from mllmrec.records import Item
from mllmrec.storage.workspace import Workspace, write_json, write_text

DATASET, WINDOW = "shop", 6
SHELVES = ("Sea", "Sand", "Wood", "Town")
SEEN = ("wooden boat", "yellow camel", "green fern", "brick tower")
FIRST = ("Bel", "Cor", "Dan", "Fen", "Gal", "Hul", "Jar", "Kem", "Lor", "Mon", "Nor", "Pel", "Quil", "Rov", "Sab")
LAST = ("amo", "iva", "ulo", "ent")
GOOD_STEPS = (
    "Step 1: The user likes boats and quiet bays.\n"
    "Step 2: The next choice goes on to larger ships.\n"
    "Step 3: (1) near water; (2) with a boat; (3) calm\n"
    "Step 4: A calm story about a ship in a bay."
)


def items() -> list[Item]:
    """Item `207` is the eighth of the third shelf; each shelf has a genre, and the even ones are of the 1980s."""
    return [
        Item(
            item_id=f"{shelf + 1}{number:02d}",
            title=f"{FIRST[number]}{LAST[shelf]} ({1984 if number % 2 else 1996})",
            attributes=(("genres", f"{genre}|{'Long' if number % 3 else 'Short'}"),),
        )
        for shelf, genre in enumerate(SHELVES)
        for number in range(len(FIRST))
    ]


def catalogue() -> Catalogue:
    return Catalogue(items())


def captions() -> dict[str, str]:
    """What each item's image shows: its shelf's thing, in the light of the item's number."""
    lights = ("at dawn", "at noon", "in the rain")
    return {
        item.item_id: f"A {SEEN[int(item.item_id[0]) - 1]} {lights[int(item.item_id[1:]) % 3]}." for item in items()
    }


def lines(count: int = 24, length: int = 8) -> dict[str, list[str]]:
    """user -> items, all but one from the user's shelf; none of the users is held out for validation."""
    users = [name for name in (f"visitor-{number}z" for number in range(10 * count)) if not is_held_out(name)][:count]
    return {user: _basket(number, length) for number, user in enumerate(users)}


def _basket(number: int, length: int) -> list[str]:
    shelf = number % len(SHELVES) + 1
    own = [f"{shelf}{(number * 7 + step * 4) % 15:02d}" for step in range(length)]
    own[1] = f"{(number + 1) % len(SHELVES) + 1}{number % 15:02d}"
    return own


def make_shop(root: Path, train: dict[str, list[str]] | None = None, *, captioned: bool = True) -> Workspace:
    workspace = Workspace(root)
    rows = "".join(f"{item.item_id},{item.title},{item.attributes[0][1]}\n" for item in items())
    write_text(workspace.dataset(DATASET).titles, "item,title,genres\n" + rows)
    write_text(workspace.dataset(DATASET).split("train"), tsv(train if train is not None else lines()))
    if captioned:
        shown = {item: {"title": catalogue().title(item), "caption": text} for item, text in captions().items()}
        write_json(workspace.dataset(DATASET).captions, shown)
    return workspace


class ScriptedTeacher:
    """Writes by a function of the request's text, and remembers what it was asked."""

    name = "scripted"

    def __init__(self, write: Callable[[Request], str | None]) -> None:
        self._write = write
        self.asked: list[Request] = []

    def answer(self, requests: Iterable[Request]) -> Iterator[Reply]:
        for request in requests:
            self.asked.append(request)
            text = self._write(request)
            usage = {"calls": 1, "prompt_tokens": len(request.text.split()), "completion_tokens": 50}
            yield Reply(key=request.key, text=text, failure=None if text is not None else "truncated", usage=usage)

    @property
    def texts(self) -> list[str]:
        return [request.text for request in self.asked]


def draft_of(request: Request) -> str:
    """A draft of enough words that differs from request to request."""
    mark = hashlib.sha256(request.text.encode()).hexdigest()[:8]
    return (
        f"Draft {mark}: this person takes things of one kind, lately more of them, and so will want another one soon."
    )


def steps_of(request: Request) -> str:
    """Four good steps that differ from request to request."""
    mark = hashlib.sha256(request.text.encode()).hexdigest()[:8]
    return GOOD_STEPS.replace("quiet bays", f"quiet bays of {mark}")


def histories(train: dict[str, list[str]]) -> Sequence[tuple[str, ...]]:
    return [tuple(basket[-WINDOW:-1]) for basket in train.values()]
