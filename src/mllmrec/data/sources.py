"""The public data sets that `mllmrec fetch dataset` knows: where they lie, their checksums and their terms.

Nothing of them is shipped: each user downloads from the owner and under the owner's terms. A sha256 of None means
that the owner publishes none and may replace the file; `fetch` then reports what it found.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace

from mllmrec.artifacts import named
from mllmrec.errors import SettingsError

GROUPLENS = "https://files.grouplens.org/datasets/movielens"
MICROLENS = "https://recsys.westlake.edu.cn"
CLOSED_TERMS = (
    "GroupLens, research use only: name GroupLens in publications, don't redistribute, no commercial use without "
    "their permission"
)
OPEN_TERMS = (
    "GroupLens, research use: name GroupLens in publications, redistribute only under the same terms, no commercial "
    "use without their permission"
)
MICROLENS_TERMS = "Westlake University, research use only: name MicroLens in publications, don't redistribute"


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    url: str
    sha256: str | None = None

    @property
    def name(self) -> str:
        """The last part of the address, without its query."""
        return self.url.split("?")[0].split("#")[0].rstrip("/").rsplit("/", 1)[-1]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A data set to download. `importer` is what `mllmrec prepare --source` calls its form."""

    name: str
    files: tuple[RemoteFile, ...]
    terms: str
    page: str
    importer: str
    dataset: str


def _movielens(name: str, archive: str, sha256: str, terms: str, importer: str, page: str) -> Source:
    return Source(
        name=name,
        files=(RemoteFile(url=f"{GROUPLENS}/{archive}", sha256=sha256),),
        terms=terms,
        page=f"https://grouplens.org/datasets/movielens/{page}/",
        importer=importer,
        dataset="movielens",
    )


def _microlens(size: str, titles: str) -> Source:
    folder = f"{MICROLENS}/MicroLens-{size}-Dataset"
    return Source(
        name=f"microlens-{size}",
        files=(RemoteFile(url=f"{folder}/MicroLens-{size}_pairs.csv"), RemoteFile(url=f"{folder}/{titles}")),
        terms=MICROLENS_TERMS,
        page="https://github.com/westlake-repl/MicroLens",
        importer="microlens",
        dataset="microlens",
    )


SOURCES = {
    source.name: source
    for source in (
        _movielens(
            "movielens-100k",
            "ml-100k.zip",
            "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
            CLOSED_TERMS,
            "movielens-100k",
            "100k",
        ),
        _movielens(
            "movielens-1m",
            "ml-1m.zip",
            "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
            CLOSED_TERMS,
            "movielens-1m",
            "1m",
        ),
        # The owner calls this one a development set that may change: then the checksum says so, and --sha256 helps.
        _movielens(
            "movielens-latest-small",
            "ml-latest-small.zip",
            "696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436",
            OPEN_TERMS,
            "movielens-latest",
            "latest",
        ),
        _movielens(
            "movielens-25m",
            "ml-25m.zip",
            "8b21cfb7eb1706b4ec0aac894368d90acf26ebdfb6aced3ebd4ad5bd1eb9c6aa",
            OPEN_TERMS,
            "movielens-latest",
            "25m",
        ),
        _movielens(
            "movielens-32m",
            "ml-32m.zip",
            "e4a68655d7386b8f95f2f2424b2ff975dfdd15ffd59e0d864a14dca43e99d6ee",
            OPEN_TERMS,
            "movielens-latest",
            "32m",
        ),
        _microlens("50k", "MicroLens-50k_titles.csv"),
        _microlens("100k", "MicroLens-100k_title_en.csv"),
    )
}

# Known to `prepare`, but the owner asks for an account or has withdrawn the file.
BY_HAND = {
    "netflix-prize": "Netflix no longer offers it, and the copy at "
    "https://www.kaggle.com/datasets/netflix-inc/netflix-prize-data needs an account there. Unpack it into a folder "
    "and run `mllmrec prepare --source netflix-prize --raw FOLDER --dataset netflix`",
}


def find_source(name: str | None, url: str | None, sha256: str | None) -> Source:
    """The data set that is meant: an address of the user's own, or a known one by its name.

    >>> find_source("movielens-1m", None, None).files[0].name
    'ml-1m.zip'
    """
    if url is not None:
        file = RemoteFile(url=url, sha256=sha256)
        named("file", file.name)
        name = named("data set", name or file.name.split(".")[0])
        terms = "not known here; see the page that offers it"
        return Source(name=name, files=(file,), terms=terms, page="", importer="pairs", dataset=name)
    if name in BY_HAND:
        raise SettingsError(f"{name} can't be fetched: {BY_HAND[name]}.")
    if name is None or name not in SOURCES:
        close = difflib.get_close_matches(name or "", SOURCES, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise SettingsError(
            f"No data set is known as {name!r}.{hint} Expected one of {', '.join(SOURCES)}, or an address with --url."
        )
    source = SOURCES[name]
    if sha256 is None:
        return source
    if len(source.files) > 1:
        raise SettingsError(
            f"{name} consists of {len(source.files)} files, so one --sha256 can't check it. Leave it out."
        )
    return replace(source, files=(replace(source.files[0], sha256=sha256),))
