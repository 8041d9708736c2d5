"""The policy that chooses among candidates, and GRPO's objective over it: arithmetic on tensors, without a model.

The score s_c of a candidate is the log-probability of its whole answer, in nats. The candidate policy is the model's
own, given that the answer names a candidate:

    q_c = exp(s_c) / Z,    Z = sum of exp(s_c) over the candidates

It is what sampling gives when every other answer is thrown away, and 1 - Z is how many would be. GRPO samples a group
of answers and gives each an advantage, (reward - mean) / (standard deviation + 1e-4). As the group grows, mean and
deviation become those under q, and the mean over the group a sum over the candidates:

    loss = - sum of q_c A_c + beta KL(q, q_ref),    A_c = (r_c - m) / (d + 1e-4), held constant
    m = sum of q_c r_c,    d^2 = sum of q_c (r_c - m)^2,    KL(q, q_ref) = sum of q_c log(q_c / q_ref_c)

Its gradient is -sum of A_c grad q_c + beta grad KL. Where one candidate earns 1 and all others 0 the first term is the
gradient of -2 arcsin(sqrt(q_target)), but for the 1e-4.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

EPSILON = 1e-4
"""What GRPO adds to a standard deviation before it divides by it."""


@dataclass(frozen=True, kw_only=True)
class Objective:
    """GRPO's loss for one prompt, and the figures of its candidate policy (all but `loss` detached).

    `chances_C` is q; `reward` and `reward_std` are m and d; `entropy` is that of q in nats; `outside` is 1 - Z.
    """

    loss: Tensor
    chances_C: Tensor
    reward: Tensor
    reward_std: Tensor
    kl: Tensor
    entropy: Tensor
    outside: Tensor


def objective(scores_C: Tensor, rewards_C: Tensor, reference_C: Tensor | None, beta: float) -> Objective:
    """The loss of one prompt from its candidates' scores; without reference scores there is no KL term."""
    logq_C = scores_C.log_softmax(dim=0)
    chances_C = logq_C.detach().exp()
    divergence = scores_C.new_zeros(()) if reference_C is None else kl(logq_C, reference_C.log_softmax(dim=0))
    gain = (logq_C.exp() * advantages(chances_C, rewards_C)).sum()
    mean, deviation = moments(chances_C, rewards_C)
    return Objective(
        loss=beta * divergence - gain,
        chances_C=chances_C,
        reward=mean,
        reward_std=deviation,
        kl=divergence.detach(),
        entropy=-(chances_C * logq_C.detach()).sum(),
        outside=outside_mass(scores_C.detach()),
    )


def advantages(chances_C: Tensor, rewards_C: Tensor) -> Tensor:
    """(reward - mean) / (standard deviation + 1e-4) under the policy; zeros where all rewards are equal.

    >>> found = advantages(torch.tensor([0.2, 0.8]), torch.tensor([1.0, 0.0]))  # mean .2, deviation .4
    >>> [round(value, 3) for value in found.tolist()]
    [2.0, -0.5]
    """
    mean, deviation = moments(chances_C, rewards_C)
    if bool((rewards_C == rewards_C[0]).all()):
        return torch.zeros_like(rewards_C)
    return (rewards_C - mean) / (deviation + EPSILON)


def moments(chances_C: Tensor, rewards_C: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the reward under the policy."""
    mean = (chances_C * rewards_C).sum()
    return mean, (chances_C * (rewards_C - mean).square()).sum().sqrt()


def kl(logq_C: Tensor, reference_C: Tensor) -> Tensor:
    """KL(q, q_ref) in nats, from the logarithms of both."""
    return (logq_C.exp() * (logq_C - reference_C)).sum()


def outside_mass(scores_C: Tensor) -> Tensor:
    """1 - Z, the probability of all answers that aren't a candidate's, word for word.

    >>> round(outside_mass(torch.log(torch.tensor([0.2, 0.3]))).item(), 6)
    0.5
    """
    return (-torch.expm1(scores_C.logsumexp(dim=0))).clamp(min=0)


def distribution(scores_C: Sequence[float]) -> list[float]:
    """q from scores in plain numbers.

    >>> distribution([-1000.0, -1000.0])
    [0.5, 0.5]
    """
    highest = max(scores_C)
    weights = [math.exp(score - highest) for score in scores_C]
    return [weight / math.fsum(weights) for weight in weights]


def entropy(chances_C: Sequence[float]) -> float:
    """The entropy of a distribution, in nats.

    >>> entropy([1.0, 0.0]), round(entropy([0.5, 0.5]), 6)
    (0.0, 0.693147)
    """
    return -math.fsum(chance * math.log(chance) for chance in chances_C if chance > 0) + 0.0


def draw(chances_C: Sequence[float], at: float) -> int:
    """The candidate at which the running sum of the chances passes `at`, a number in [0, 1).

    >>> [draw([0.25, 0.75], at) for at in (0.0, 0.24, 0.25, 0.99)]
    [0, 0, 1, 1]
    """
    sums = list(itertools.accumulate(chances_C))
    return min(bisect_right(sums, at * sums[-1]), len(sums) - 1)
