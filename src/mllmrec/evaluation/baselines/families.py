"""The baselines by name: the constructor of each, its grid of parameters, and the libraries that it needs.

A family with one point has nothing to tune. The grids are small on purpose and belong to the result: their hash is an
input of every RUN, and metrics.json reports each of their points with its validation metric.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mllmrec.data.item_files import read_captions
from mllmrec.data.sequences import Interactions
from mllmrec.errors import SettingsError, install_command
from mllmrec.evaluation.baselines.base import Baseline
from mllmrec.evaluation.baselines.counts import Markov, Popularity, Random, Recency
from mllmrec.storage.workspace import Workspace

Params = Mapping[str, Any]
INSTALL = install_command("baselines")


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """What a baseline is fitted with: a dataset, the model's window, the seed, and how texts become vectors."""

    workspace: Workspace
    dataset: str
    interactions: Interactions
    window: int = 10
    seed: int = 42
    embedder: str = "tfidf"

    def captions(self) -> dict[str, str]:
        """item id -> caption, where there are captions."""
        return read_captions(self.workspace, self.dataset, "auto")


@dataclass(frozen=True, kw_only=True)
class Family:
    """One baseline by name: `make` gives an unfitted one from a point of `grid`."""

    make: Callable[[Params, Fitting], Baseline]
    grid: tuple[Params, ...] = ({},)
    reads_history: bool = False
    rectools: bool = False
    reads_texts: bool = False

    @property
    def tuned(self) -> bool:
        return len(self.grid) > 1


def _itemknn(params: Params, _fitting: Fitting) -> Baseline:
    from mllmrec.evaluation.baselines.neighbours import ItemKnn

    return ItemKnn(**params)


def _sasrec(params: Params, fitting: Fitting) -> Baseline:
    from mllmrec.evaluation.baselines.sequential import SasRec

    return SasRec(params, fitting.seed, short=fitting.window - 1)


def _bert4rec(params: Params, fitting: Fitting) -> Baseline:
    from mllmrec.evaluation.baselines.sequential import Bert4Rec

    return Bert4Rec(params, fitting.seed, short=fitting.window - 1)


def _textknn(params: Params, fitting: Fitting) -> Baseline:
    from mllmrec.evaluation.baselines.neighbours import TextKnn
    from mllmrec.models.embedding import make_embedders

    captions = fitting.captions() if params["captions"] else {}
    catalogue = fitting.interactions.catalogue
    texts = {item: f"{catalogue[item].title}. {captions.get(item, '')}" for item in catalogue}
    return TextKnn(texts, make_embedders(fitting.embedder)[0], params["decay"])


FAMILIES: dict[str, Family] = {
    "random": Family(make=lambda _params, fitting: Random(fitting.seed)),
    "popularity": Family(make=lambda _params, _fitting: Popularity()),
    "recency": Family(
        make=lambda params, _fitting: Recency(params["half_life"]),
        grid=tuple({"half_life": items} for items in (10, 1, 3, 30)),
    ),
    "markov": Family(make=lambda _params, _fitting: Markov()),
    "itemknn": Family(
        make=_itemknn,
        grid=tuple(
            {"kind": kind, "K": neighbours, "decay": decay}
            for kind in ("cosine", "tfidf", "bm25")
            for neighbours in (50, 200, 1000, 5000)
            for decay in (1.0, 0.9, 0.7)
        ),
        reads_history=True,
        rectools=True,
    ),
    "textknn": Family(
        make=_textknn,
        grid=tuple({"captions": captions, "decay": decay} for captions in (False, True) for decay in (1.0, 0.9, 0.7)),
        reads_history=True,
        reads_texts=True,
    ),
    "sasrec": Family(
        make=_sasrec,
        grid=({"dropout_rate": 0.2}, {"dropout_rate": 0.5}),
        reads_history=True,
        rectools=True,
    ),
    "bert4rec": Family(
        make=_bert4rec,
        grid=({"mask_prob": 0.2}, {"mask_prob": 0.5}),
        reads_history=True,
        rectools=True,
    ),
}


def check_installed(names: Iterable[str]) -> None:
    """Refuse baselines whose library isn't there, with the command that installs it."""
    lacking = [name for name in names if FAMILIES[name].rectools]
    if lacking and importlib.util.find_spec("rectools") is None:
        without = ",".join(name for name, family in FAMILIES.items() if not family.rectools)
        raise SettingsError(
            f"{', '.join(lacking)} {'needs' if len(lacking) == 1 else 'need'} RecTools, which isn't installed. Install "
            f"it: {INSTALL}; or run those that need no extra: --names {without}."
        )
