"""Which film at TMDB an item is: the links.csv that MovieLens releases bring along.

Releases number films alike from 1m on (latest, 25m, 32m too), so that the links of one serve another; 100k has numbers
of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mllmrec.artifacts import Workspace, require
from mllmrec.data.quoting import csv_rows
from mllmrec.data.sequences import Catalogue
from mllmrec.data.text_files import read_text
from mllmrec.errors import ArtifactError, DataError

COLUMNS = ("movieId", "tmdbId")
ATTRIBUTE = "tmdb_id"


@dataclass(frozen=True, kw_only=True)
class Links:
    """TMDB's id of each item that has one, and the file that says so."""

    path: Path
    tmdb_ids: dict[str, str]


def find_links(workspace: Workspace, dataset: str, catalogue: Catalogue, given: str | None) -> Links:
    """The file that was given, else data/<dataset>/links.csv, the titles file, or the one links.csv under raw/."""
    if given is not None:
        what = "The file of links to TMDB"
        return read_links(require(Path(given).expanduser(), what, "Give links.csv of a MovieLens release by --links."))
    own = workspace.dataset(dataset) / "links.csv"
    if own.exists():
        return read_links(own)
    if titled := _titled(catalogue):
        return Links(path=workspace.titles(dataset), tmdb_ids=titled)
    found = sorted((workspace.root / "raw").glob("**/links.csv"))
    if len(found) == 1:
        return read_links(found[0])
    several = f"; there are {len(found)} under raw/: {', '.join(map(str, found))}" if found else ""
    raise ArtifactError(
        f"No links from items to TMDB are known: {own} does not exist, and the titles file has no column "
        f"{ATTRIBUTE}{several}. Give the links.csv of a MovieLens release whose movie ids are the dataset's with "
        "--links, or fetch one with `mllmrec fetch dataset movielens-latest-small`."
    )


def read_links(path: Path) -> Links:
    """The rows of links.csv that have a TMDB id; of an item's several rows the first counts."""
    rows = csv_rows(read_text(path), path)
    _, header = next(rows, (1, []))
    header = [name.strip() for name in header]
    if not set(COLUMNS) <= set(header):
        raise DataError(f"{path}:1: expected the columns {', '.join(COLUMNS)}; found {', '.join(header)}.")
    tmdb_ids: dict[str, str] = {}
    for number, row in rows:
        fields = dict(zip(header, row, strict=False))
        item, tmdb_id = (fields.get(name, "").strip() for name in COLUMNS)
        if tmdb_id and not _is_number(tmdb_id):
            raise DataError(f"{path}:{number}: tmdbId is {tmdb_id[:40]!r}. Expected a number, or nothing.")
        if tmdb_id:
            tmdb_ids.setdefault(item, tmdb_id)
    return Links(path=path, tmdb_ids=tmdb_ids)


def _titled(catalogue: Catalogue) -> dict[str, str]:
    """TMDB ids among the attributes of the titles file, where `prepare` puts them."""
    found = {item_id: dict(item.attributes).get(ATTRIBUTE, "").strip() for item_id, item in catalogue.items()}
    return {item_id: tmdb_id for item_id, tmdb_id in found.items() if _is_number(tmdb_id)}


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
