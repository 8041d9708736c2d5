"""The candidate policy and GRPO's objective over it: hand values, finite differences, large sampled groups."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mllmrec.data.draws import uniform
from mllmrec.training.grpo.candidate_policy import advantages, distribution, draw, kl, moments, objective, outside_mass

HIT = torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
UNEVEN = torch.tensor([0.3, 1.0, -1.5, 0.3, 0.0], dtype=torch.float64)
SCORES = torch.tensor([-3.0, -4.1, -2.2, -6.0, -3.3], dtype=torch.float64)
REFERENCE = torch.tensor([-3.5, -3.7, -2.9, -5.0, -3.1], dtype=torch.float64)


def gradient(scores: Tensor, rewards: Tensor, reference: Tensor | None, beta: float) -> Tensor:
    leaf = scores.clone().requires_grad_()
    objective(leaf, rewards, reference, beta).loss.backward()
    assert leaf.grad is not None
    return leaf.grad


def test_advantages_worked_out_by_hand() -> None:
    """q = (1/4, 3/4), r = (1, 0): mean 1/4, variance 3/16, deviation .4330127; .75 and -.25 are over .4331127."""
    chances, rewards = torch.tensor([0.25, 0.75]), torch.tensor([1.0, 0.0])
    mean, deviation = moments(chances, rewards)
    assert (mean.item(), deviation.item()) == pytest.approx((0.25, 0.4330127))
    assert advantages(chances, rewards).tolist() == pytest.approx([0.75 / 0.4331127, -0.25 / 0.4331127])


def test_what_is_told_of_a_prompt_worked_out_by_hand() -> None:
    """exp(s) = (.1, .3): Z = .4, q = (1/4, 3/4); q_ref = (1/2, 1/2)."""
    scores, reference = torch.log(torch.tensor([0.1, 0.3])), torch.log(torch.tensor([0.05, 0.05]))
    told = objective(scores, torch.tensor([1.0, 0.0]), reference, 0.5)
    assert told.chances_C.tolist() == pytest.approx([0.25, 0.75])
    assert told.outside.item() == pytest.approx(0.6)
    assert told.entropy.item() == pytest.approx(-(0.25 * math.log(0.25) + 0.75 * math.log(0.75)))
    assert told.kl.item() == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5))
    assert (told.reward.item(), told.reward_std.item()) == pytest.approx((0.25, 0.4330127))
    assert told.loss.item() == pytest.approx(0.5 * told.kl.item(), abs=1e-6)


def test_the_whole_policy_has_nothing_outside_its_candidates() -> None:
    assert outside_mass(torch.tensor([0.0, -math.inf])).item() == 0
    assert outside_mass(torch.tensor([-200.0, -300.0])).item() == 1


def test_one_hit_among_misses_climbs_the_arcsine_of_its_root() -> None:
    """d/dp 2 arcsin(sqrt p) = 1 / sqrt(p (1 - p)), and dp/ds_target = p (1 - p)."""
    found = gradient(SCORES, HIT, None, 0.0)
    leaf = SCORES.clone().requires_grad_()
    loss = -2 * torch.arcsin(leaf.softmax(0)[1].sqrt())
    loss.backward()
    assert leaf.grad is not None
    p = SCORES.softmax(0)[1].item()
    assert found[1].item() == pytest.approx(-math.sqrt(p * (1 - p)), rel=1e-3)
    assert torch.allclose(found, leaf.grad, rtol=1e-3)


@pytest.mark.parametrize("rewards", [HIT, UNEVEN], ids=["strict", "uneven"])
@pytest.mark.parametrize("beta", [0.0, 0.1, 3.0])
def test_the_gradient_is_that_of_finite_differences(rewards: Tensor, beta: float) -> None:
    """Of -sum q_c A_c + beta KL with the advantages of the point itself, which are constants."""
    held = advantages(SCORES.softmax(0), rewards)

    def loss(scores: Tensor) -> float:
        q = scores.softmax(0)
        return (beta * kl(q.log(), REFERENCE.log_softmax(0)) - (q * held).sum()).item()

    step = 1e-6
    nudges = torch.eye(5, dtype=torch.float64) * step
    expected = [(loss(SCORES + nudge) - loss(SCORES - nudge)) / (2 * step) for nudge in nudges]
    assert gradient(SCORES, rewards, REFERENCE, beta).tolist() == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("reward", [0.0, 0.3, -1.5, 1.0])
def test_equal_rewards_teach_nothing(reward: float) -> None:
    """In float32 too, where the mean of equal rewards may be off by a rounding error."""
    scores = torch.tensor([-3.0, -4.1, -2.2], requires_grad=True)
    told = objective(scores, torch.full((3,), reward), None, 0.0)
    told.loss.backward()
    assert scores.grad is not None
    assert scores.grad.tolist() == [0, 0, 0]
    assert told.loss.item() == 0


def test_a_policy_that_is_its_reference_has_no_kl_and_no_gradient_from_it() -> None:
    assert objective(SCORES, HIT, SCORES, 1.0).kl.item() == 0
    with_kl, without = gradient(SCORES, HIT, SCORES, 1.0), gradient(SCORES, HIT, None, 0.0)
    assert torch.allclose(with_kl, without, atol=1e-12)


@given(st.lists(st.floats(-20, 0), min_size=2, max_size=12), st.integers(0, 11))
def test_a_step_along_the_gradient_raises_the_expected_reward(values: list[float], target: int) -> None:
    """Scores move together without changing the policy, so the gradient sums to zero; and it never points away."""
    scores = torch.tensor(values, dtype=torch.float64)
    rewards = torch.zeros_like(scores)
    rewards[target % len(values)] = 1
    found = gradient(scores, rewards, None, 0.0)
    assert found.sum().item() == pytest.approx(0, abs=1e-9)
    before = (scores.softmax(0) * rewards).sum().item()
    after = ((scores - 0.1 * found).softmax(0) * rewards).sum().item()
    assert after >= before - 1e-12


def sampled_gradient(scores: Tensor, rewards: Tensor, reference: Tensor, beta: float, size: int) -> Tensor:
    """One group of `size` answers as GRPO has it, on log-probabilities that aren't renormalised.

    Advantages with the group's own mean and deviation; the ratio to the sampling policy, whose value is 1; and the
    estimate of the KL, rho - log rho - 1 with rho = q_ref / q, weighted with the ratio as it must be for its gradient
    to be that of the KL.
    """
    leaf = scores.clone().requires_grad_()
    chances = scores.softmax(0).tolist()
    drawn = torch.tensor([draw(chances, uniform(1, "group", str(number))) for number in range(size)])
    paid = rewards[drawn]
    held = (paid - paid.mean()) / (paid.std() + 1e-4)
    ratio = torch.exp(leaf[drawn] - scores[drawn])
    logq = leaf.log_softmax(0)[drawn]
    rho = torch.exp(reference.log_softmax(0)[drawn] - logq)
    relative = torch.exp(logq - logq.detach())
    ((relative * (rho - rho.log() - 1)).mean() * beta - (ratio * held).mean()).backward()
    assert leaf.grad is not None
    return leaf.grad


@pytest.mark.parametrize("rewards", [HIT, UNEVEN], ids=["strict", "uneven"])
@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_a_sampled_group_of_twenty_thousand_points_the_same_way(rewards: Tensor, beta: float) -> None:
    """The scores are those of whole answers, 70 % of whose mass lies outside the candidates: that drops out."""
    exact = gradient(SCORES, rewards, REFERENCE, beta)
    sampled = sampled_gradient(SCORES, rewards, REFERENCE, beta, 20_000)
    assert torch.cosine_similarity(exact, sampled, dim=0).item() > 0.99
    assert sampled.norm().item() == pytest.approx(exact.norm().item(), rel=0.05)
    assert outside_mass(SCORES).item() > 0.7


@given(st.lists(st.floats(-50, 0), min_size=1, max_size=20), st.floats(0, 1, exclude_max=True))
def test_draws_follow_the_distribution(scores: list[float], at: float) -> None:
    chances = distribution(scores)
    assert math.fsum(chances) == pytest.approx(1)
    assert chances == pytest.approx(torch.tensor(scores, dtype=torch.float64).softmax(0).tolist(), abs=1e-12)
    drawn = draw(chances, at)
    assert math.fsum(chances[:drawn]) <= at + 1e-9
    assert math.fsum(chances[: drawn + 1]) >= at - 1e-9


def test_the_shares_of_many_draws_are_the_chances() -> None:
    chances = [0.1, 0.05, 0.6, 0.25]
    drawn = [draw(chances, uniform(7, "draw", str(number))) for number in range(20_000)]
    assert [drawn.count(place) / 20_000 for place in range(4)] == pytest.approx(chances, abs=0.012)
