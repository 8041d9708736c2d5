"""The importer of each source name."""

from __future__ import annotations

from mllmrec.data.importers.amazon import AMAZON
from mllmrec.data.importers.microlens import MICROLENS
from mllmrec.data.importers.movielens import MOVIELENS_1M, MOVIELENS_100K, MOVIELENS_LATEST
from mllmrec.data.importers.netflix import NETFLIX_PRIZE
from mllmrec.data.importers.pairs import PAIRS
from mllmrec.data.importers.sequences import SEQUENCES
from mllmrec.data.importers.source import Importer
from mllmrec.settings.prepare import Source

IMPORTERS: dict[Source, Importer] = {
    "movielens-100k": MOVIELENS_100K,
    "movielens-latest": MOVIELENS_LATEST,
    "movielens-1m": MOVIELENS_1M,
    "microlens": MICROLENS,
    "netflix-prize": NETFLIX_PRIZE,
    "amazon": AMAZON,
    "pairs": PAIRS,
    "sequences": SEQUENCES,
}
