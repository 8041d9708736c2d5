"""How often a group of sampled answers teaches nothing, in closed form.

A sampled answer has one of four outcomes: it names the target, another candidate, an item outside the list, or nothing.
A reward rule gives each outcome a value, and outcomes of one value are one event. The G answers of a prompt are
independent, so all their rewards are equal with probability

    P(all G equal) = sum over the values v of P(v)^G,      P(v) = sum of the chances of the outcomes worth v

and then no answer has an advantage over the others. The expected share over prompts is the mean of that. Answers drawn
among the candidates have but two outcomes, and the same holds for them. Where most groups would teach nothing either
way, the whole candidate set can be the group: the target is always in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mllmrec.evaluation.metrics import FloatArray
from mllmrec.records import RankingExample
from mllmrec.training.rewards import Reward

OUTCOMES = ("hit", "miss", "foreign", "formless")
ENOUGH = 0.5

_EXAMPLE = RankingExample(example_id="", user_id="", history=(), candidates=("1", "2"), target_id="1", split="train")
_ANSWERS = ("[ITEM_1] a", "[ITEM_2] b", "[ITEM_3] c", "no answer")


def outcome_rewards(reward: Reward) -> tuple[float, ...]:
    """What a reward rule pays for each of the OUTCOMES.

    >>> from mllmrec.training.rewards import reference, strict
    >>> outcome_rewards(strict), outcome_rewards(reference)
    ((1.0, 0.0, -1.5, -1.5), (1.0, 0.3, 0.3, -1.0))
    """
    return tuple(reward(answer, _EXAMPLE) for answer in _ANSWERS)


def zero_advantage(chances: FloatArray, rewards: Sequence[float], num_generations: int) -> FloatArray:
    """The chance of each prompt's group to have no advantage, from the chances of its outcomes (prompts, outcomes).

    >>> import numpy as np
    >>> zero_advantage(np.array([[0.5, 0.25, 0.125, 0.125], [1.0, 0, 0, 0]]), (1.0, 0.0, -1.5, -1.5), 2).tolist()
    [0.375, 1.0]
    """
    values = sorted(set(rewards))
    of_value = np.stack([chances[:, np.array(rewards) == value].sum(axis=1) for value in values], axis=1)
    equal: FloatArray = (of_value**num_generations).sum(axis=1)
    return equal


def suggest_rollouts(generated: float, drawn: float) -> str:
    """Where answers should come from, by the smallest share of groups without advantage of either way of sampling.

    >>> suggest_rollouts(0.3, 0.1), suggest_rollouts(0.95, 0.4), suggest_rollouts(0.95, 0.8)
    ('generate', 'candidates', 'exact')
    """
    if generated <= ENOUGH:
        return "generate"
    return "candidates" if drawn <= ENOUGH else "exact"


def suggest(shares: Mapping[tuple[int, float], float]) -> tuple[int, float]:
    """The (G, temperature) to begin with, from the expected share of groups without advantage at each.

    The smallest group with which at least half of the groups teach something, at the temperature nearest to 1 (the
    lower of two); where there is none, the one with the smallest share.

    >>> suggest({(2, 1.0): 0.7, (4, 0.7): 0.45, (4, 1.0): 0.5, (8, 1.0): 0.3})
    (4, 1.0)
    >>> suggest({(2, 1.0): 0.9, (8, 1.0): 0.8, (8, 1.3): 0.7})
    (8, 1.3)
    """
    fit = [cell for cell, share in shares.items() if share <= ENOUGH]
    if fit:
        return min(fit, key=lambda cell: (cell[0], round(abs(cell[1] - 1), 9), cell[1]))
    return min(shares, key=lambda cell: (shares[cell], cell))
