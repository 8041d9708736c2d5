"""Small made-up datasets on disk, in the layout every stage reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mllmrec import Workspace
from mllmrec.storage.workspace import write_text

SUPPORT = Path(__file__).parent
"""The folder of what tests share: helpers to import, and programs to run."""
Sequences = Mapping[str, Sequence[str]]


def tsv(lines: Sequences | Iterable[tuple[str, Sequence[str]]]) -> str:
    """Lines of `user<TAB>item item ...`; pairs where a user has several."""
    pairs = lines.items() if isinstance(lines, Mapping) else lines
    return "".join(f"{user}\t{' '.join(items)}\n" for user, items in pairs)


def titles_csv(items: Iterable[str]) -> str:
    return "item,title\n" + "".join(f"{item},Thing {item}\n" for item in items)


def write_dataset(root: Path, name: str = "shop", titles: str | None = None, **splits: str) -> Workspace:
    """Write the given split files and a titles file, by default with a row for each item that occurs."""
    workspace = Workspace(root)
    for split, content in splits.items():
        write_text(workspace.dataset(name).split(split), content)
    if titles is None:
        rows = [line.partition("\t")[2].split() for content in splits.values() for line in content.splitlines()]
        titles = titles_csv(dict.fromkeys(item for row in rows for item in row))
    write_text(workspace.dataset(name).titles, titles)
    return workspace
