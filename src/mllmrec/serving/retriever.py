"""Who gives the model candidates: a baseline that scores the whole catalogue, as fitted earlier or anew."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from mllmrec.errors import DataError
from mllmrec.evaluation.baselines.base import Baseline
from mllmrec.evaluation.baselines.families import FAMILIES, Fitting, check_installed
from mllmrec.evaluation.baselines.fitting import lines_for, read_fitted
from mllmrec.evaluation.retrieval.catalogue import ItemPool
from mllmrec.records import RankingExample
from mllmrec.settings.data import DEFAULT_RETRIEVER, RETRIEVERS


@dataclass(frozen=True, kw_only=True)
class CatalogueRetriever:
    """The best items of the catalogue for a history; `origin` says how the baseline came about, in words."""

    name: str
    origin: str
    baseline: Baseline
    pool: ItemPool
    popularity: Baseline

    @classmethod
    def open(cls, name: str, fitting: Fitting) -> CatalogueRetriever:
        """The named retriever, or with `auto` one that is fitted already; nothing is written.

        Raises SettingsError when its library isn't installed.
        """
        wanted = RETRIEVERS if name == "auto" else (name,)
        tuned = [name for name in wanted if FAMILIES[name].tuned and _is_installed(name)]
        fitted = next((own for own in ((name, read_fitted(name, fitting, "test")) for name in tuned) if own[1]), None)
        pool = ItemPool.of(fitting.interactions, "test")
        popularity = _fit("popularity", fitting)
        if fitted is not None and fitted[1] is not None:
            baseline, origin = fitted[1].baseline, "as fitted before"
            return cls(name=fitted[0], origin=origin, baseline=baseline, pool=pool, popularity=popularity)
        if name == "auto":
            name = DEFAULT_RETRIEVER if _is_installed(DEFAULT_RETRIEVER) else "popularity"
        check_installed([name])
        origin = "fitted now" + (", with its first settings" if FAMILIES[name].tuned else "")
        return cls(name=name, origin=origin, baseline=_fit(name, fitting), pool=pool, popularity=popularity)

    def best(self, history: Sequence[str], count: int, taken: Collection[str] = ()) -> list[str]:
        """The `count` best items, best first, without those of the history and those `taken`; equals as in the pool.

        Without a history they are the most popular ones. Fewer come where the catalogue has no more.
        """
        example = RankingExample(
            example_id="", user_id="", history=tuple(history), candidates=(), target_id="", split="test"
        )
        baseline = self.baseline if history else self.popularity
        scores_I = baseline.score_items([example], self.pool.items)[0]
        if np.isnan(scores_I).any():
            raise DataError(f"{self.name} scored an item NaN. Expected numbers; fit it again with --overwrite.")
        free_I = self.pool.free({*history, *taken})
        order = np.flatnonzero(free_I)[np.argsort(-scores_I[free_I], kind="stable")[:count]]
        return [self.pool.items[index] for index in order]


def _fit(name: str, fitting: Fitting) -> Baseline:
    family = FAMILIES[name]
    return family.make(family.grid[0], fitting).fit(lines_for(fitting, "test"))


def _is_installed(name: str) -> bool:
    return not FAMILIES[name].rectools or importlib.util.find_spec("rectools") is not None
