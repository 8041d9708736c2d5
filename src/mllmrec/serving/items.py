"""The items of a catalogue as people name them: by id, by raw id or by title, or as items of their own."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

from mllmrec.data.raw_ids import RawIds
from mllmrec.data.sequences import Catalogue
from mllmrec.errors import DataError
from mllmrec.records import Item
from mllmrec.storage.workspace import ID_PATTERN

Named = str | Item
NEAREST = 3


class ItemNames:
    """Finds items of a catalogue by what people call them.

    `pool` holds all ids that may be recommended, those without a title included.
    """

    def __init__(self, catalogue: Catalogue, raw_ids: RawIds, pool: Sequence[str]) -> None:
        self.catalogue, self.pool = catalogue, pool
        self._raw_ids, self._ids = raw_ids, frozenset(pool)

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._ids

    def resolve(self, items: Iterable[Named]) -> list[str]:
        """The ids of items; raises DataError for a name that stands for none or for several, and for other values."""
        if isinstance(items, (str, Item)):
            raise DataError(f"{items!r} was given in place of a list of items. Expected a list, such as ['12', '7'].")
        return [item.item_id if isinstance(item, Item) else self._id_of(item) for item in items]

    def id_of(self, name: str) -> str | None:
        """The id of an item that is named by id or raw id; None where there is none."""
        return name if name in self._ids else self._by_raw_id.get(name)

    def raw(self, item_id: str) -> str:
        """The id that the raw files had."""
        return self._raw_ids.item(item_id)

    def including(self, items: Iterable[Named]) -> Catalogue:
        """The catalogue with those items that it lacks.

        Raises DataError for an item whose id can't be one, or is that of another item.
        """
        new: dict[str, Item] = {}
        for item in items:
            if isinstance(item, Item):
                known = new.get(item.item_id) or self.catalogue.get(item.item_id)
                if known is None and not (ID_PATTERN.fullmatch(item.item_id) and item.item_id not in self._ids):
                    raise DataError(f"The id {item.item_id!r} of {item.title!r} can't be used. Give it another one.")
                if known is not None and known.title != item.title:
                    raise DataError(
                        f"The id {item.item_id} is that of {known.title!r}, and an item {item.title!r} was given with "
                        "it. Give it another id."
                    )
                if known is None:
                    new[item.item_id] = item
        return Catalogue([*self.catalogue.values(), *new.values()]) if new else self.catalogue

    def new_items(self, titles: Sequence[str]) -> list[Item]:
        """Items of titles that the catalogue lacks, with ids in its manner that it doesn't use.

        They are numbers above its own where its ids are numbers, else `new1`, `new2` and so on.
        """
        return [Item(item_id=item_id, title=title) for title, item_id in zip(titles, self._free_ids(), strict=False)]

    def search(self, query: str, limit: int = 20, offset: int = 0) -> tuple[list[str], int]:
        """The ids whose id or title holds all words of `query`, and how many there are in all.

        Whole titles come first, then titles that begin with the query, then the order of the pool.
        """
        text = " ".join(query.casefold().split())
        words = text.split()
        found = [item for item in self.pool if all(word in self._searched[item] for word in words)]
        found.sort(key=lambda item: (self._titles[item] != text, not self._titles[item].startswith(text)))
        return found[offset : offset + limit], len(found)

    def nearest(self, name: str) -> list[str]:
        """The titles most like a name."""
        close = difflib.get_close_matches(" ".join(name.casefold().split()), self._by_title, n=NEAREST, cutoff=0.5)
        ids = [self._by_title[title][0] for title in close]
        ids += [item for item in self.search(name, NEAREST)[0] if item not in ids]
        return [f"{self.catalogue.title(item)} ({item})" for item in ids[:NEAREST]]

    def called(self, name: str) -> list[str]:
        """The ids that a name stands for: that of an id or a raw id, else those of all items with this whole title."""
        if (item_id := self.id_of(name)) is not None:
            return [item_id]
        return list(self._by_title.get(" ".join(name.casefold().split()), []))

    def outvoted(self, name: str) -> list[str]:
        """The ids of items that have `name` as their title, where it is also the id of another item, which counts."""
        if (item_id := self.id_of(name)) is None:
            return []
        return [other for other in self._by_title.get(" ".join(name.casefold().split()), []) if other != item_id]

    def _id_of(self, name: object) -> str:
        if not isinstance(name, str):
            raise DataError(f"{name!r} names no item. Expected an id or a title as text, such as '12', or an Item.")
        found = self.called(name)
        if len(found) == 1:
            return found[0]
        if found:
            raise DataError(f"{len(found)} items are called {name!r}: {', '.join(found)}. Give one of these ids.")
        near = self.nearest(name)
        hint = f"Nearest: {'; '.join(near)}." if near else "Look for it by a part of its title."
        raise DataError(f"No item has the id or title {name!r}. Expected one of {len(self.pool):,} items. {hint}")

    def _free_ids(self) -> Iterator[str]:
        numeric = all(item.isdecimal() for item in self.pool)
        number = max(map(int, self.pool), default=0) if numeric else 0
        while True:
            number += 1
            item_id = str(number) if numeric else f"new{number}"
            if item_id not in self._ids:
                yield item_id

    @cached_property
    def longest_title(self) -> int:
        """Characters of the longest title."""
        return max(map(len, map(self.catalogue.title, self.pool)), default=0)

    @cached_property
    def _titles(self) -> dict[str, str]:
        return {item: " ".join(self.catalogue.title(item).casefold().split()) for item in self.pool}

    @cached_property
    def _searched(self) -> dict[str, str]:
        return {item: f"{item.casefold()} {self.raw(item).casefold()} {title}" for item, title in self._titles.items()}

    @cached_property
    def _by_title(self) -> dict[str, list[str]]:
        by_title: dict[str, list[str]] = {}
        for item, title in self._titles.items():
            by_title.setdefault(title, []).append(item)
        return by_title

    @cached_property
    def _by_raw_id(self) -> dict[str, str]:
        return {raw: item for item, raw in self._raw_ids.items.items() if item in self._ids}
