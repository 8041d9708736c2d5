"""SASRec and BERT4Rec by RecTools: transformers over item ids, with no language in them.

The library trains; this module cuts lines into sessions, stops training when validation no longer gains, keeps the best
round, and scores arbitrary items as the product of the session's vector with the items' embeddings, which is what the
library's own `recommend` sorts by. Weights are kept as safetensors, never as a pickled checkpoint.

A line longer than the model's sessions is cut from its end, so that all of it is learned from; sessions share the one
item at which they meet. Every second line is cut shorter, to the window that the model is also asked about: a network
that has met full sessions alone is at a loss with short ones. While it learns, the library's logs, progress bars and
advice are silenced, and torch's and numpy's generators are seeded and put back afterwards. The same seed gives the
same numbers on one thread.
"""

from __future__ import annotations

import copy
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import BERT4RecModel, SASRecModel
from rectools.models.nn.item_net import IdEmbeddingsItemNet
from safetensors.torch import load_file, save_file

from mllmrec.data.sequences import Line
from mllmrec.errors import DataError
from mllmrec.evaluation.baselines.base import Baseline, CatalogueBaseline, Floats
from mllmrec.records import RankingExample
from mllmrec.storage.workspace import read_json, write_json

WEIGHTS, ITEMS = "model.safetensors", "items.json"
LIBRARY = {"n_blocks": 2, "n_heads": 2, "n_factors": 64, "loss": "softmax", "lr": 1e-3, "batch_size": 128}
TRAINING = {"session_max_len": 50, "max_epochs": 60, "patience": 3}


class SequentialBaseline(CatalogueBaseline):
    """A session model. `params` are arguments of the library's model, and how long to learn at most:

    `epochs` fixes the number of rounds; without it `fit_judged` learns for up to `max_epochs` and stops when `patience`
    rounds in a row brought nothing. `short` is the number of items that every second line is cut to; None leaves all
    lines as long as they are.
    """

    model_class: ClassVar[type[Any]]
    mask: ClassVar[bool] = False

    def __init__(self, params: Mapping[str, Any], seed: int = 42, short: int | None = None) -> None:
        self.params: dict[str, Any] = {**LIBRARY, **TRAINING, **params}
        self.seed, self.short = seed, short
        self.items: dict[str, int] = {}
        self._best_epochs = int(self.params.get("epochs", self.params["max_epochs"]))

    def fit(self, lines: Sequence[Line]) -> Self:
        with _quiet(), _seeded(self.seed):
            for epoch in self._learn(self._begin(lines)):
                if epoch >= self._best_epochs:
                    break
        return self

    def fit_judged(self, lines: Sequence[Line], judge: Callable[[Baseline], float]) -> float:
        best, best_state, since = float("-inf"), {}, 0
        with _quiet(), _seeded(self.seed):
            for epoch in self._learn(self._begin(lines)):
                value = judge(self)
                since += 1
                if value > best:
                    best, best_state, since = value, copy.deepcopy(self._network.state_dict()), 0
                    self._best_epochs = epoch
                if since >= int(self.params["patience"]) or epoch >= int(self.params["max_epochs"]):
                    break
        self._network.load_state_dict(best_state)
        return best

    def settled(self) -> dict[str, Any]:
        return {"epochs": self._best_epochs}

    def score_items(self, examples: Sequence[RankingExample], items: Sequence[str]) -> Floats:
        scores = self._all_scores([example.history for example in examples])
        columns = np.array([self.items.get(item, 0) for item in items])
        lowest = scores[:, self._first :].min(axis=1, keepdims=True) - 1
        chosen: Floats = np.where(columns > 0, scores[:, columns], lowest)
        return chosen

    def save(self, folder: Path) -> None:
        save_file({name: value.contiguous() for name, value in self._network.state_dict().items()}, folder / WEIGHTS)
        write_json(folder / ITEMS, {"session_max_len": self._length, "items": list(self.items)}, indent=None)

    def restore(self, folder: Path, lines: Sequence[Line]) -> Self:
        del lines
        kept = read_json(folder / ITEMS)
        with _quiet(), _seeded(self.seed):
            self._new_model(kept["session_max_len"])
            # The library makes its network on the first call of fit, from the items it meets, in their order.
            self._model.fit_partial(one_of_each(kept["items"]), min_epochs=0, max_epochs=0)
        self._meet()
        self._network.load_state_dict(load_file(folder / WEIGHTS))
        return self

    @property
    def _network(self) -> Any:
        return self._model.torch_model

    @property
    def _first(self) -> int:
        """The library's index of the first item; padding and mask come before."""
        return min(self.items.values())

    def _begin(self, lines: Sequence[Line]) -> Dataset:
        """A new model, whose sessions are no longer than the longest line, and what it is to learn from."""
        longest = max(len(line.items) for line in lines) - 1
        self._new_model(max(1, min(int(self.params["session_max_len"]), longest)))
        return dataset_of(lines, self._length, self.short)

    def _new_model(self, session_max_len: int) -> None:
        own = ("max_epochs", "patience", "epochs", "session_max_len")
        arguments = {name: value for name, value in self.params.items() if name not in own}
        blocks = (IdEmbeddingsItemNet,)
        self._length = session_max_len
        self._model = self.model_class(
            **arguments, session_max_len=session_max_len, item_net_block_types=blocks, epochs=1, verbose=0
        )

    def _learn(self, sessions: Dataset) -> Iterator[int]:
        """One round after another, for as long as more are asked for; gives their number.

        The library's own `fit_partial` would make its table of sessions anew for every round.
        """
        self._model.fit_partial(sessions, min_epochs=1, max_epochs=1)
        self._meet()
        yield (epoch := 1)
        trainer, module = self._model.fit_trainer, self._model.lightning_model
        batches = self._model.data_preparator.get_dataloader_train()
        while True:
            epoch += 1
            module.train()
            trainer.fit_loop.min_epochs = trainer.fit_loop.max_epochs = epoch
            trainer.fit(module, batches)
            yield epoch

    def _meet(self) -> None:
        ids = self._model.data_preparator.item_id_map.get_external_sorted_by_internal()
        first = self._model.data_preparator.n_item_extra_tokens
        self.items = {str(item): first + index for index, item in enumerate(ids[first:])}

    def _all_scores(self, histories: Sequence[Sequence[str]]) -> Floats:
        """Session vector times item embedding, (histories, the library's items); zeros where nothing is known."""
        network, length = self._network, self._length
        known = [[self.items[item] for item in history if item in self.items] for history in histories]
        sessions = np.zeros((len(known), length), dtype=np.int64)
        for row, history in zip(sessions, known, strict=True):
            tail = [*history, *([self._first - 1] if self.mask else [])][-length:]
            row[length - len(tail) :] = tail
        network.eval()
        with torch.inference_mode():
            embeddings = network.item_model.get_all_embeddings()
            batch = {"x": torch.from_numpy(sessions).to(embeddings.device)}
            vectors = network.encode_sessions(batch, embeddings)[:, -1, :]
            scores: Floats = (vectors @ embeddings.T).double().cpu().numpy()
        scores[[not history for history in known]] = 0.0
        return scores


class SasRec(SequentialBaseline):
    """Self-attention from left to right, which learns to predict the next item at every position."""

    name: ClassVar[str] = "sasrec"
    model_class = SASRecModel


class Bert4Rec(SequentialBaseline):
    """Attention in both directions, which learns to predict items that were masked."""

    name: ClassVar[str] = "bert4rec"
    model_class = BERT4RecModel
    mask: ClassVar[bool] = True


def dataset_of(lines: Sequence[Line], session_max_len: int, short: int | None = None) -> Dataset:
    """The library's table of sessions: each line cut from its end into `session_max_len` items and a target.

    With `short` every second line is cut into about that many, alike in length.
    """
    sessions = []
    for index, line in enumerate(lines):
        steps = len(line.items) - 1
        pieces = max(1, round(steps / short)) if short and index % 2 else 1
        sessions += cut(line.items, min(session_max_len, max(1, math.ceil(steps / pieces))))
    if not sessions:
        raise DataError(
            "No training line has two items, and a session model learns what follows what. Expected longer lines in "
            "train.tsv; leave sasrec and bert4rec out of --names."
        )
    users = np.repeat(np.arange(len(sessions)), [len(session) for session in sessions])
    positions = np.concatenate([np.arange(len(session)) for session in sessions])
    return _dataset(users, [item for session in sessions for item in session], positions)


def one_of_each(items: Sequence[str]) -> Dataset:
    """A table in which the library meets these items, at least two of them, in this order."""
    positions = np.arange(len(items))
    return _dataset(np.minimum(positions // 2, len(items) // 2 - 1), items, positions)


def _dataset(users: NDArray[np.int64], items: Sequence[str], positions: NDArray[np.int64]) -> Dataset:
    table = {
        Columns.User: users,
        Columns.Item: items,
        Columns.Weight: 1.0,
        Columns.Datetime: pd.to_datetime(positions, unit="s"),
    }
    return Dataset.construct(pd.DataFrame(table))


def cut(items: Sequence[str], length: int) -> list[Sequence[str]]:
    """Pieces of `length` + 1 items from the end, neighbours sharing one item, none shorter than two.

    >>> cut("abcdefg", 3)
    ['defg', 'abcd']
    >>> cut("abcd", 2), cut("ab", 5), cut("a", 5)
    (['bcd', 'ab'], ['ab'], [])
    """
    ends = range(len(items), 1, -length)
    return [items[max(0, end - length - 1) : end] for end in ends]


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Both generators the library draws from start at `seed`, and go on where they were afterwards."""
    state = np.random.get_state()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            np.random.set_state(state)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the trainer's lines about devices and workers, which say nothing to who asked for a baseline."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
