"""`mllmrec grpo --replay`: what GRPO would meet in its first step, from exact scores and without training.

For a slice of the training prompts the SFT model scores every candidate, at each temperature. That gives the chance of
each outcome of a sampled answer: it names the target, another candidate, an item outside the list, or nothing. From the
chances follows how many groups would teach nothing because all their rewards are equal, when the model writes its
answers and when they are drawn among the candidates. Most failures of GRPO are visible here: a model that answers
outside the list, one that is always right already, or groups too small to hold both a hit and a miss.

A reward rule gives each outcome a value, and outcomes of one value are one event. The G answers of a prompt are
independent, so all their rewards are equal with probability

    P(all G equal) = sum over the values v of P(v)^G,      P(v) = sum of the chances of the outcomes worth v

and then no answer has an advantage over the others. The expected share over prompts is the mean of that. Answers drawn
among the candidates have two outcomes only. Where most groups would teach nothing either way, the whole candidate set
can be the group: the target is always in it.

The result is a table, and `<sft-tag>.replay.json` beside the model's folder. It is a note about the model and no
artifact of the pipeline: it has no manifest, and is written anew each time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mllmrec.data.sequences import Interactions
from mllmrec.evaluation.comparison.statistics import Interval, bootstrap
from mllmrec.evaluation.metrics import FloatArray, per_user
from mllmrec.evaluation.ranking.rankings import position_of, ranking_of
from mllmrec.models.base import ScoringTask
from mllmrec.models.chat import Encoder
from mllmrec.models.ranker import Ranker, load_ranker
from mllmrec.progress import note, progress
from mllmrec.records import RankingExample, Summary, Table
from mllmrec.settings.training import GrpoSettings
from mllmrec.storage.workspace import Workspace, write_json
from mllmrec.training.datasets import TrainingExamples, training_examples
from mllmrec.training.grpo.candidate_policy import distribution
from mllmrec.training.grpo.rewards import REWARDS, Reward
from mllmrec.training.setup import as_trained, asked_format, full_model, is_main_process, training_inputs

TEMPERATURES = (0.7, 1.0, 1.3)
GROUPS = (2, 4, 8, 16)
PROMPTS = 512
OPENING = "[ITEM_"

OUTCOMES = ("hit", "miss", "foreign", "formless")
ENOUGH = 0.5

_EXAMPLE = RankingExample(example_id="", user_id="", history=(), candidates=("1", "2"), target_id="1", split="train")
_ANSWERS = ("[ITEM_1] a", "[ITEM_2] b", "[ITEM_3] c", "no answer")


def run(settings: GrpoSettings, workspace: Workspace) -> Summary:
    """Report what sampling from the model `--sft-tag` would earn, for each G and temperature."""
    started = time.monotonic()
    base = full_model(settings, workspace)
    settings = as_trained(settings, base)
    if settings.limit is None:
        settings = settings.model_copy(update={"limit": PROMPTS})
    chosen, captions = asked_format(settings, workspace)
    interactions = Interactions.load(workspace, settings.dataset)
    examples = training_examples(settings, workspace, interactions, chosen.window)
    ranker = load_ranker(
        workspace,
        base,
        catalogue=interactions.catalogue,
        captions=captions,
        max_prompt_tokens=chosen.max_prompt_tokens,
        device=settings.device,
        chat_template=settings.chat_template,
    )
    if settings.top_p < 1:
        note(f"--top-p {settings.top_p} isn't reckoned with: the chances are those of sampling with top_p 1.")
    asked = [examples.example(0, index) for index in range(len(examples))]
    report = weigh(settings, asked, _tasks(asked, examples, ranker.encoder), ranker)
    path = base.with_name(f"{base.name}.replay.json")
    if is_main_process():
        origin = {"settings": settings.result_settings(), "inputs": training_inputs(settings, workspace, str(base))}
        write_json(path, {**report, **origin, "seconds": round(time.monotonic() - started, 1)})
    return Summary(
        headline=f"{path}: suggested {report['suggested']['text']}",
        artifact=path,
        tables=_tables(report, settings),
        warnings=tuple(report["warnings"]),
        facts=report,
    )


def weigh(
    settings: GrpoSettings, asked: Sequence[RankingExample], tasks: Sequence[ScoringTask], ranker: Ranker
) -> dict[str, Any]:
    """The chances of each outcome, of groups without advantage, and what follows from them."""
    rewards = outcome_rewards(REWARDS[settings.reward])
    temperatures = sorted({*TEMPERATURES, settings.temperature})
    groups = sorted({*GROUPS, settings.num_generations})
    columns: dict[str, FloatArray] = {}
    for temperature in temperatures:
        scores = _scores(ranker, tasks, temperature)
        chances = np.array([_chances(row, example) for row, example in zip(scores, asked, strict=True)])
        columns |= {f"{temperature}/{name}": chances[:, column] for column, name in enumerate(OUTCOMES)}
        columns[f"{temperature}/invalid"] = chances[:, 2] + chances[:, 3]
        columns[f"{temperature}/reward"] = chances @ np.array(rewards)
        columns[f"{temperature}/whole"] = np.array(
            [np.exp(row[: len(example.candidates)]).sum() for row, example in zip(scores, asked, strict=True)]
        )
        columns |= {f"{temperature}/G{size}": zero_advantage(chances, rewards, size) for size in groups}
        drawn = np.array([_drawn_chances(row, example) for row, example in zip(scores, asked, strict=True)])
        columns |= {f"{temperature}/C{size}": zero_advantage(drawn, rewards, size) for size in groups}
        if temperature == 1.0:
            columns["HR@1"] = _ranked_first(scores, asked)
    intervals = dict(zip(columns, bootstrap(np.stack(list(columns.values()), axis=1), seed=settings.seed), strict=True))
    shares = {(size, heat): intervals[f"{heat}/G{size}"].value for size in groups for heat in temperatures}
    drawn_shares = {(size, heat): intervals[f"{heat}/C{size}"].value for size in groups for heat in temperatures}
    suggested = suggest(shares)
    rollouts = suggest_rollouts(shares[suggested], drawn_shares[suggest(drawn_shares)])
    values = {name: [interval.value, interval.low, interval.high] for name, interval in intervals.items()}
    return {
        "model": settings.sft_tag,
        "reward": settings.reward,
        "num_prompts": len(asked),
        "HR@1": values["HR@1"],
        "outcomes": {
            str(heat): {name: values[f"{heat}/{name}"] for name in (*OUTCOMES, "invalid", "whole", "reward")}
            for heat in temperatures
        },
        "zero_advantage_share": {
            str(size): {str(heat): values[f"{heat}/G{size}"] for heat in temperatures} for size in groups
        },
        "zero_advantage_share_of_candidates": {
            str(size): {str(heat): values[f"{heat}/C{size}"] for heat in temperatures} for size in groups
        },
        "suggested": _suggestion(rollouts, shares, drawn_shares),
        "warnings": _warnings({name: interval.value for name, interval in intervals.items()}, shares, suggested),
    }


def outcome_rewards(reward: Reward) -> tuple[float, ...]:
    """What a reward rule pays for each of the OUTCOMES.

    >>> from mllmrec.training.grpo.rewards import reference, strict
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


def _suggestion(
    rollouts: str, generated: Mapping[tuple[int, float], float], drawn: Mapping[tuple[int, float], float]
) -> dict[str, Any]:
    """The flags to begin with, in parts and as text."""
    shares = generated if rollouts == "generate" else drawn
    size, heat = suggest(shares)
    flags = f"--num-generations {size} --temperature {heat:g}"
    without = f"about {shares[size, heat]:.0%} of the groups without advantage"
    if rollouts == "exact":
        text = f"--rollouts exact (sampling would leave {without} even with {flags} --rollouts candidates)"
    elif rollouts == "candidates":
        best = f"{generated[suggest(generated)]:.0%} at best if the model writes"
        text = f"--rollouts candidates {flags} ({without}; {best})"
    else:
        text = f"{flags} ({without})"
    return {"rollouts": rollouts, "num_generations": size, "temperature": heat, "text": text}


def _tasks(asked: Sequence[RankingExample], examples: TrainingExamples, encoder: Encoder) -> list[ScoringTask]:
    """For each prompt, hints included: the whole answers, the ids alone, and the opening that all answers share."""
    tasks = []
    for example in asked:
        ids = [encoder.chat.encode(f"[ITEM_{item}]") for item in example.candidates]
        opening = encoder.chat.encode(OPENING)
        while opening and any(answer[: len(opening)] != opening for answer in ids):
            opening = opening[:-1]
        whole = [encoder.answer_ids(item) for item in example.candidates]
        prompt = encoder.prompt_ids(example, examples.hints.get(example.example_id))
        tasks.append(ScoringTask(prompt_T=prompt, answers_C=[*whole, *ids, *([opening] if opening else [])]))
    return tasks


def _scores(ranker: Ranker, tasks: Sequence[ScoringTask], temperature: float) -> list[list[float]]:
    scorer = ranker.scorer_at(temperature)
    scores: dict[int, list[float]] = {}
    with progress(f"replay at temperature {temperature:g}", len(tasks)) as advance:
        for index, own in scorer.score(tasks):
            scores[index] = own
            advance(1)
    return [scores[index] for index in range(len(tasks))]


def _chances(scores: Sequence[float], example: RankingExample) -> list[float]:
    """The chances of the OUTCOMES of one prompt, which sum to one.

    An answer counts by its id, as the rewards count it: whatever follows the id is left open. One that opens as an
    answer does and names no candidate counts as outside the list, one that opens otherwise as no answer.
    """
    num = len(example.candidates)
    by_id = np.exp(scores[num : 2 * num])
    opened = float(np.exp(scores[2 * num])) if len(scores) > 2 * num else 1.0
    hit = float(by_id[example.candidates.index(example.target_id)])
    listed = min(float(by_id.sum()), 1.0)
    opened = min(max(opened, listed), 1.0)
    return [hit, max(listed - hit, 0.0), opened - listed, 1.0 - opened]


def _drawn_chances(scores: Sequence[float], example: RankingExample) -> list[float]:
    """The chances of the OUTCOMES when an answer is drawn among the candidates: a hit, or a miss."""
    hit = distribution(scores[: len(example.candidates)])[example.candidates.index(example.target_id)]
    return [hit, 1.0 - hit, 0.0, 0.0]


def _ranked_first(scores: Sequence[Sequence[float]], asked: Sequence[RankingExample]) -> FloatArray:
    """HR@1 of the whole answers' exact scores, as evaluation has it."""
    rankings = [ranking_of(example, row[: len(example.candidates)]) for row, example in zip(scores, asked, strict=True)]
    return per_user([position_of(ranking) for ranking in rankings], ["HR@1"])[:, 0]


def _warnings(
    values: Mapping[str, float], shares: Mapping[tuple[int, float], float], suggested: tuple[int, float]
) -> list[str]:
    warnings = []
    heat = suggested[1]
    if (invalid := values[f"{heat}/invalid"]) > 0.5:
        warnings.append(
            f"{invalid:.0%} of the answers sampled at temperature {heat:g} would name no candidate. GRPO would mostly "
            "teach the form; train the SFT model longer first."
        )
    if (hit := values[f"{heat}/hit"]) > 0.9:
        warnings.append(f"The model already answers right with probability {hit:.2f}: there is little left to learn.")
    if shares[suggested] > 0.5:
        warnings.append(
            f"When the model writes its answers, no group of up to {max(shares)[0]} at any of these temperatures has "
            f"an advantage more often than not; {shares[suggested]:.0%} of the groups would teach nothing even at the "
            "best setting. --rollouts candidates and exact need no answer to be written."
        )
    return warnings


def _tables(report: Mapping[str, Any], settings: GrpoSettings) -> tuple[Table, ...]:
    outcomes = report["outcomes"]
    names = (*OUTCOMES, "invalid", "reward")
    titles = ("target", "other candidate", "outside the list", "no answer", "invalid in all", "reward")
    heats = tuple(outcomes)
    return (
        Table(
            title=f"One answer sampled from {report['model']} ({report['num_prompts']} training prompts)",
            columns=("temperature", *titles),
            rows=tuple((heat, *(_cell(outcomes[heat][name]) for name in names)) for heat in heats),
            note=f"The target is ranked first by exact scores for {_cell(report['HR@1'])} of the prompts. Intervals "
            "are 95 %, over prompts.",
        ),
        _shares_table(report["zero_advantage_share"], heats, f"(reward {settings.reward})"),
        _shares_table(
            report["zero_advantage_share_of_candidates"], heats, "when answers are drawn with --rollouts candidates"
        ),
    )


def _shares_table(shares: Mapping[str, Any], heats: Sequence[str], when: str) -> Table:
    return Table(
        title=f"Expected share of groups without any advantage {when}",
        columns=("G", *(f"temperature {heat}" for heat in heats)),
        rows=tuple((size, *(_cell(row[heat]) for heat in heats)) for size, row in shares.items()),
        note="P(all G rewards equal) = sum over the reward's values of P(value)^G, mean over prompts.",
    )


def _cell(interval: Sequence[float]) -> str:
    value, low, high = interval
    return str(Interval(value=value, low=low, high=high))
