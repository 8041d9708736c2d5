"""The weights of a blend: a conditional logit over the candidates of each list.

A part's scores are standardised within a list, z = (score - mean) / standard deviation over the list's candidates (the
population's, divided by their number); where all are equal, z is 0 for each. So a part may have any scale and origin:
log-probabilities, counts and similarities go together, and a weight counts in standard deviations. With `ranks` it is
not the scores that are standardised but their ranks in the list, equal scores sharing the mean of theirs: then a part
counts by its order alone, which suits scores whose distances mean little, such as counts of few events.

A blend's score is u = sum of weight x z over its parts, and the target of a list is taken to be chosen with the chance

    exp(u of the target) / sum of exp(u) over the candidates

The weights minimise the mean negative log of that chance over lists, plus penalty / 2 x the sum of squared weights.
That is convex, so there is one best point, whatever the start. Features and penalty are those with which weights fitted
on the other folds do best on the users of each fold; of equal ones the scores, and the largest penalty.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from mllmrec.data.draws import uniform
from mllmrec.errors import DataError
from mllmrec.evaluation.metrics import FloatArray
from mllmrec.records import counted

PENALTIES = (1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5)
DIGITS = 9
"""Digits of the losses by which penalties are told apart: further ones depend on where the search stopped."""
Features = Literal["scores", "ranks"]
FLAT = 1e-6
"""The largest slope at which a search counts as having arrived."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ChoiceLists:
    """Candidate lists one after the other.

    `features` holds a row of standardised scores for each candidate (candidates of all lists, parts), `lengths` the
    number of candidates of each list, and `targets` the row of each list's target.
    """

    features: FloatArray
    lengths: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]

    @classmethod
    def of(cls, lists: Iterable[tuple[FloatArray, int]]) -> ChoiceLists:
        """From the features of each list (candidates, parts) and the index of its target among them."""
        features, targets = zip(*lists, strict=True)
        lengths = np.array([len(own) for own in features])
        starts = np.cumsum(lengths) - lengths
        return cls(features=np.concatenate(features), lengths=lengths, targets=starts + np.array(targets))

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def starts(self) -> npt.NDArray[np.int64]:
        """The first row of each list."""
        starts: npt.NDArray[np.int64] = np.cumsum(self.lengths) - self.lengths
        return starts

    def only(self, chosen: npt.NDArray[np.bool_]) -> ChoiceLists:
        """The lists that are chosen."""
        within, lengths = self.targets - self.starts, self.lengths[chosen]
        return ChoiceLists(
            features=self.features[np.repeat(chosen, self.lengths)],
            lengths=lengths,
            targets=np.cumsum(lengths) - lengths + within[chosen],
        )

    def without(self, part: int) -> ChoiceLists:
        """All lists, without the scores of one part."""
        return replace(self, features=np.delete(self.features, part, axis=1))


@dataclass(frozen=True, kw_only=True)
class FittedWeights:
    """The weights of the parts, for which features and with which penalty, and the mean held-out loss of each pair."""

    weights: tuple[float, ...]
    features: Features
    penalty: float
    held_out_loss: dict[Features, dict[float, float]]


def fitted_by_folds(lists: Mapping[Features, ChoiceLists], folds: Sequence[int]) -> FittedWeights:
    """Weights fitted on all lists, with the features and the penalty that do best on the users of each fold in turn.

    `lists` holds the same lists with each kind of features, `folds` the fold of each list. Raises DataError where all
    lists are in one fold.
    """
    losses = {kind: held_out_losses(own, folds) for kind, own in lists.items()}
    pairs = [(kind, penalty) for kind in lists for penalty in PENALTIES]
    kind, penalty = min(pairs, key=lambda pair: round(losses[pair[0]][pair[1]], DIGITS))
    weights = fit(lists[kind], penalty)
    return FittedWeights(weights=tuple(weights.tolist()), features=kind, penalty=penalty, held_out_loss=losses)


def held_out_losses(lists: ChoiceLists, folds: Sequence[int]) -> dict[float, float]:
    """For each penalty the mean loss of lists under weights that were fitted on the other folds."""
    if len(set(folds)) < 2:
        raise DataError(
            f"The {counted(len(folds), 'validation list')} that can be fitted are of the users of one fold, so that no "
            "penalty can be judged. Expected users of at least two; rank more validation users, or give another --seed."
        )
    own, totals = np.array(folds), dict.fromkeys(PENALTIES, 0.0)
    for fold in sorted(set(folds)):
        inside, outside = lists.only(own == fold), lists.only(own != fold)
        weights = np.zeros(lists.features.shape[1])
        for penalty in PENALTIES:
            weights = fit(outside, penalty, start=weights)
            totals[penalty] += len(inside) * penalised_loss(weights, inside, 0.0)[0]
    return {penalty: total / len(lists) for penalty, total in totals.items()}


def fit(lists: ChoiceLists, penalty: float, start: FloatArray | None = None) -> FloatArray:
    """The weights with the least penalised loss, one for each part; `start` is where the search begins."""
    from scipy.optimize import minimize

    found = minimize(
        penalised_loss,
        np.zeros(lists.features.shape[1]) if start is None else start,
        args=(lists, penalty),
        jac=True,
        method="L-BFGS-B",
        options={"gtol": 1e-10, "ftol": 0.0, "maxiter": 1_000},
    )
    weights: FloatArray = found.x
    slope = float(np.abs(penalised_loss(weights, lists, penalty)[1]).max())
    if not slope <= FLAT:
        raise DataError(
            f"The weights of the blend don't settle: after {found.nit} steps the loss still falls by {slope:.1e} for a "
            "unit of weight. Expected finite scores of an ordinary size; look at those of the validation RUNs."
        )
    return weights


def penalised_loss(weights: FloatArray, lists: ChoiceLists, penalty: float) -> tuple[float, FloatArray]:
    """The mean negative log-chance of the targets plus penalty / 2 x |weights|^2, and its gradient (parts,)."""
    utilities, starts = blended(weights, lists.features), lists.starts
    highest = np.maximum.reduceat(utilities, starts)
    chances = np.exp(utilities - np.repeat(highest, lists.lengths))
    sums = np.add.reduceat(chances, starts)
    chances /= np.repeat(sums, lists.lengths)
    loss = np.mean(np.log(sums) + highest - utilities[lists.targets])
    gradient = (chances @ lists.features - lists.features[lists.targets].sum(axis=0)) / len(lists)
    return float(loss + penalty / 2 * weights @ weights), gradient + penalty * weights


def blended(weights: Sequence[float] | FloatArray, features: FloatArray) -> FloatArray:
    """The scores of candidates (candidates,) from their features (candidates, parts).

    Summed part by part, so that candidates with the same features get the same score to the last bit and are tied; a
    product of matrices may sum two rows in different orders.
    """
    total: FloatArray = np.zeros(len(features))
    for part, weight in enumerate(weights):
        total += weight * features[:, part]
    return total


def features_of(scores: Iterable[Sequence[float]], kind: Features = "scores") -> FloatArray:
    """The features of one list (candidates, parts) from the scores that each part gave its candidates."""
    return np.column_stack([standardised(own if kind == "scores" else ranks(own)) for own in scores])


def ranks(scores: Sequence[float]) -> list[float]:
    """How many scores are lower than each, and half of those that are equal to it.

    >>> ranks([0.5, 7.0, 0.5])
    [1.0, 2.5, 1.0]
    """
    values = np.asarray(scores, dtype=np.float64)
    lower, equal = (values[:, None] > values).sum(axis=1), (values[:, None] == values).sum(axis=1)
    own: list[float] = (lower + equal / 2).tolist()
    return own


def standardised(scores: Sequence[float]) -> FloatArray:
    """One part's scores of one list with mean 0 and standard deviation 1; zeros where all are equal.

    >>> standardised([1.0, 3.0]).tolist(), standardised([0.3, 0.3]).tolist()
    ([-1.0, 1.0], [0.0, 0.0])
    """
    values = np.asarray(scores, dtype=np.float64)
    spread = values.max() - values.min()
    if spread == 0:
        return np.zeros(len(values))
    # Between 0 and 1 first: squares of tiny scores would vanish, and those of huge ones overflow.
    shares = (values - values.min()) / spread
    own: FloatArray = (shares - shares.mean()) / shares.std()
    return own


def folds_of(user_ids: Iterable[str], num_folds: int, seed: int) -> list[int]:
    """The fold of each user, by a hash of seed and user alone."""
    return [int(uniform(seed, "blend/folds", user_id) * num_folds) for user_id in user_ids]
