"""`mllmrec grpo --replay`: what GRPO would meet in its first step, from exact scores and without training.

For a slice of the training prompts the SFT model scores every candidate, at each temperature. That gives the chance of
each outcome of a sampled answer, and from them in closed form (odds.py) the share of groups that would teach nothing
because all their rewards are equal, when the model writes its answers and when they are drawn among the candidates.
Most failures of GRPO are visible here: a model that answers outside the list, one that is always right already, or
groups too small to hold both a hit and a miss.

The result is a table, and `<sft-tag>.replay.json` beside the model's folder. It is a note about the model and no
artifact of the pipeline: it has no manifest, and is written anew each time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mllmrec.artifacts import Workspace, write_json
from mllmrec.backends.base import ScoringTask
from mllmrec.backends.encoding import Encoder
from mllmrec.backends.huggingface import LoadedModel, load
from mllmrec.backends.scoring import HuggingFaceScorer
from mllmrec.data.sequences import Interactions
from mllmrec.evaluation.metrics import FloatArray, per_user
from mllmrec.evaluation.rankings import position_of, ranking_of
from mllmrec.evaluation.statistics import Interval, bootstrap
from mllmrec.locks import sweep_drafts
from mllmrec.progress import note, progress
from mllmrec.records import RankingExample, Summary, Table
from mllmrec.settings.training import GrpoSettings
from mllmrec.training.candidate_policy import distribution
from mllmrec.training.datasets import TrainingExamples, training_examples
from mllmrec.training.odds import OUTCOMES, outcome_rewards, suggest, suggest_rollouts, zero_advantage
from mllmrec.training.rewards import REWARDS
from mllmrec.training.setup import asked_format, is_main_process, training_inputs
from mllmrec.training.start import as_trained, full_model

TEMPERATURES = (0.7, 1.0, 1.3)
GROUPS = (2, 4, 8, 16)
PROMPTS = 512
TOKENS = 8192
OPENING = "[ITEM_"


def run(settings: GrpoSettings, workspace: Workspace) -> Summary:
    """Tell what sampling from the model `--sft-tag` would earn, for each G and temperature."""
    started = time.monotonic()
    base = full_model(settings, workspace)
    settings = as_trained(settings, base)
    if settings.limit is None:
        settings = settings.model_copy(update={"limit": PROMPTS})
    chosen, captions = asked_format(settings, workspace)
    interactions = Interactions.load(workspace, settings.dataset)
    examples = training_examples(settings, workspace, interactions, chosen.window)
    loaded = load(workspace, base, device=settings.device)
    encoder = Encoder.make(loaded.chat, interactions.catalogue, captions, chosen.max_prompt_tokens)
    if settings.top_p < 1:
        note(f"--top-p {settings.top_p} isn't reckoned with: the chances are those of sampling with top_p 1.")
    asked = [examples.example(0, index) for index in range(len(examples))]
    report = weigh(settings, asked, _tasks(asked, examples, encoder), loaded)
    path = base.with_name(f"{base.name}.replay.json")
    if is_main_process():
        told = {"settings": settings.result_settings(), "inputs": training_inputs(settings, workspace, str(base))}
        sweep_drafts([path])
        write_json(path, {**report, **told, "seconds": round(time.monotonic() - started, 1)})
    return Summary(
        headline=f"{path}: suggested {report['suggested']['text']}",
        artifact=path,
        tables=_tables(report, settings),
        warnings=tuple(report["warnings"]),
        facts=report,
    )


def weigh(
    settings: GrpoSettings, asked: Sequence[RankingExample], tasks: Sequence[ScoringTask], loaded: LoadedModel
) -> dict[str, Any]:
    """The chances of each outcome, of groups without advantage, and what follows from them."""
    rewards = outcome_rewards(REWARDS[settings.reward])
    temperatures = sorted({*TEMPERATURES, settings.temperature})
    groups = sorted({*GROUPS, settings.num_generations})
    columns: dict[str, FloatArray] = {}
    for temperature in temperatures:
        scores = _scores(loaded, tasks, temperature)
        chances = np.array([_chances(row, example) for row, example in zip(scores, asked, strict=True)])
        columns |= {f"{temperature}/{name}": chances[:, place] for place, name in enumerate(OUTCOMES)}
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
    told = {name: [each.value, each.low, each.high] for name, each in intervals.items()}
    return {
        "model": settings.sft_tag,
        "reward": settings.reward,
        "num_prompts": len(asked),
        "HR@1": told["HR@1"],
        "outcomes": {
            str(heat): {name: told[f"{heat}/{name}"] for name in (*OUTCOMES, "invalid", "whole", "reward")}
            for heat in temperatures
        },
        "zero_advantage_share": {
            str(size): {str(heat): told[f"{heat}/G{size}"] for heat in temperatures} for size in groups
        },
        "zero_advantage_share_of_candidates": {
            str(size): {str(heat): told[f"{heat}/C{size}"] for heat in temperatures} for size in groups
        },
        "suggested": _suggestion(rollouts, shares, drawn_shares),
        "warnings": _warnings({name: each.value for name, each in intervals.items()}, shares, suggested),
    }


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


def _scores(loaded: LoadedModel, tasks: Sequence[ScoringTask], temperature: float) -> list[list[float]]:
    scorer = HuggingFaceScorer(loaded.model, TOKENS, temperature)
    found: dict[int, list[float]] = {}
    with progress(f"replay at temperature {temperature:g}", len(tasks)) as advance:
        for index, scores in scorer.score(tasks):
            found[index] = scores
            advance(1)
    return [found[index] for index in range(len(tasks))]


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
    found = []
    heat = suggested[1]
    if (invalid := values[f"{heat}/invalid"]) > 0.5:
        found.append(
            f"{invalid:.0%} of the answers sampled at temperature {heat:g} would name no candidate. GRPO would mostly "
            "teach the form; train the SFT model longer first."
        )
    if (hit := values[f"{heat}/hit"]) > 0.9:
        found.append(f"The model already answers right with probability {hit:.2f}: there is little left to learn.")
    if shares[suggested] > 0.5:
        found.append(
            f"When the model writes its answers, no group of up to {max(shares)[0]} at any of these temperatures has "
            f"an advantage more often than not; {shares[suggested]:.0%} of the groups would teach nothing even at the "
            "best setting. --rollouts candidates and exact need no answer to be written."
        )
    return found


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
