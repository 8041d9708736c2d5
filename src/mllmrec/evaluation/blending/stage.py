"""`mllmrec blend`: does the language model add anything to the others, and they to it?

    mllmrec blend result/shop/sasrec/test_uni9_w10_s42 result/shop/grpo/test_uni9_w10_s42 \
        --on result/shop/sasrec/valid_uni9_w10_s42 result/shop/grpo/valid_uni9_w10_s42

Weights are fitted on the validation RUNs (`fitting.py`) and used on those of the test. The blend is a RUN like any
other, and its metrics.json holds the weights. What a part adds is the difference between the blend and the blend of the
others, fitted anew without it, user by user on the test lists. All parts' differences in one metric are a family.

A tuned baseline and a trained model chose their own settings by validation targets, so that they look a little better
on these lists than on new ones; what they are worth is measured on the test.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mllmrec.errors import DataError, SettingsError
from mllmrec.evaluation.blending.fitting import (
    ChoiceLists,
    Features,
    FittedWeights,
    blended,
    features_of,
    fitted_by_folds,
    folds_of,
)
from mllmrec.evaluation.blending.parts import Answered, Part, Scored, read_parts, scored_lists
from mllmrec.evaluation.comparison.statistics import Interval, PairedDifference
from mllmrec.evaluation.comparison.steps import MAIN, VERDICT, WORTH, corrected_on, differences_of_pairs
from mllmrec.evaluation.comparison.tables import results_table, shown, users_of
from mllmrec.evaluation.metrics import FloatArray, metric_names, per_user, vacuous
from mllmrec.evaluation.ranking.rankings import position_of, ranking_of
from mllmrec.evaluation.ranking.runs import Run, read_run, run_folder, slice_input, write_run
from mllmrec.records import Ranking, RankingExample, Summary, Table, counted
from mllmrec.settings.evaluation import BlendedRunSettings, BlendSettings, RunSettings
from mllmrec.storage.locks import locked
from mllmrec.storage.manifests import finished, hash_files
from mllmrec.storage.workspace import Workspace

DIGITS = 12


@dataclass(frozen=True, kw_only=True)
class Blend:
    """Fitted weights of the parts together, and of the others without each part in turn."""

    whole: FittedWeights
    without: Sequence[FittedWeights]
    num_fitted: int
    num_left_out: int


def run(settings: BlendSettings, workspace: Workspace) -> Summary:
    """Write the RUN of a blend; the summary tells its weights, what each part adds, and all RUNs in one table."""
    started = time.monotonic()
    parts = read_parts(settings, workspace)
    first = parts[0].test
    own = _own_settings(settings, parts)
    name = settings.name or f"blend-{'-'.join(own.parts)}"
    folder = run_folder(own, workspace, name, first.file)
    if name in own.parts:
        raise SettingsError(f"--name {name} is that of a part. Expected another name for the blend.")
    inputs = _inputs(parts) | slice_input(own)
    with locked(folder):
        if finished(folder, own, inputs) is not None:
            return _summary(read_run(folder), parts, "is finished; nothing to do")
        blend = fit_blend(scored_lists([part.valid.run for part in parts]), own)
        lists, ranking_began = scored_lists([part.test.run for part in parts]), time.monotonic()
        features = {
            kind: [features_of(scores, kind) for _, scores in lists]
            for kind in {fitted.features for fitted in (blend.whole, *blend.without)}
        }
        rankings = ranked(lists, features[blend.whole.features], blend.whole.weights)
        seconds = time.monotonic() - ranking_began
        left_out = [
            ranked(lists, features[fitted.features], fitted.weights, without=part)
            for part, fitted in enumerate(blend.without)
        ]
        made = write_run(
            folder,
            rankings,
            own,
            name=name,
            candidates=first.file,
            inputs=inputs,
            started=started,
            seconds=seconds,
            num_lists=len(first.examples),
            details={"blend": _facts(blend, parts, [rankings, *left_out], own, workspace)},
        )
    return _summary(made, parts, f"blends {', '.join(own.parts)}")


def fit_blend(lists: Sequence[Scored], settings: BlendedRunSettings) -> Blend:
    """Weights fitted on validation lists, with all parts and without each; lists that lack their target say nothing."""
    listed = [(own, scores) for own, scores in lists if own.target_id in own.candidates]
    if not listed:
        raise DataError(
            f"None of the {counted(len(lists), 'validation list')} holds its target, so that no weight can be fitted. "
            "Expected lists of the target among negatives, or of a retriever that finds it for some users."
        )
    kinds: tuple[Features, ...] = ("scores", "ranks") if settings.features == "auto" else (settings.features,)
    choices = {
        kind: ChoiceLists.of((features_of(scores, kind), own.candidates.index(own.target_id)) for own, scores in listed)
        for kind in kinds
    }
    folds = folds_of((own.user_id for own, _ in listed), settings.folds, settings.fold_seed)
    return Blend(
        whole=fitted_by_folds(choices, folds),
        without=[
            fitted_by_folds({kind: own.without(part) for kind, own in choices.items()}, folds)
            for part in range(len(settings.parts))
        ],
        num_fitted=len(listed),
        num_left_out=len(lists) - len(listed),
    )


def ranked(
    lists: Sequence[Scored], features: Sequence[FloatArray], weights: Sequence[float], *, without: int | None = None
) -> list[Ranking]:
    """The rankings of test lists with these features (candidates, parts) by the weights of all parts `without` one.

    Scores are rounded to DIGITS, so that candidates are tied where nothing but rounding tells them apart.
    """
    rankings = []
    for (own, _), of_list in zip(lists, features, strict=True):
        known = of_list if without is None else np.delete(of_list, without, axis=1)
        example = RankingExample(
            example_id=own.example_id,
            user_id=own.user_id,
            history=(),
            candidates=own.candidates,
            target_id=own.target_id,
            split="test",
        )
        rankings.append(ranking_of(example, np.round(blended(weights, known), DIGITS).tolist()))
    return rankings


def blend_table(run: Run) -> Table:
    """The weight of each part, and what it adds: the blend minus the blend of the others."""
    facts = run.facts["blend"]
    metric = facts["metric"]
    first, *_ = (added := {name: _adds(without["adds"]) for name, without in facts["without"].items()}).values()
    names = [name for name in first if name in (*MAIN, metric)]
    rows = tuple(
        (
            name,
            f"{facts['whole']['weights'][name]:+.3f}",
            *(_cell(adds[each].interval) for each in names),
            f"{adds[metric].p_holm:.4f}",
            f"{adds[metric].detectable:.3f}",
            WORTH[adds[metric].verdict],
        )
        for name, adds in added.items()
    )
    return Table(
        title=f"What each part of {run.label} adds, {run.facts['dataset']}, {users_of(run.facts)}, "
        f"{run.facts['candidates']}",
        columns=("part", "weight", *shown(names, run), f"p Holm, {metric}", "detectable", "adds?"),
        rows=rows,
        note=(
            f"Weights of a conditional logit over {facts['whole']['features']} standardised within a list, fitted on "
            f"{counted(facts['lists']['fitted'], 'validation list')}, penalty {facts['whole']['penalty']:g}. "
            "Differences: the blend minus the blend of the other parts, fitted anew, with 95 % intervals over users. "
            f"p Holm: paired randomisation test, corrected for all parts. detectable: the true difference in {metric} "
            "that a 5 % test on these users finds in 80 % of repetitions."
        ),
    )


def _own_settings(settings: BlendSettings, parts: Sequence[Part]) -> BlendedRunSettings:
    """The settings of the blend's RUN: lists, slice, cut-offs and seed are those of the first test RUN."""
    known = parts[0].test.manifest.settings
    shared = {name: known[name] for name in RunSettings.model_fields if name in known}
    own = {
        "root": settings.root,
        "overwrite": settings.overwrite,
        "parts": tuple(part.name for part in parts),
        "features": settings.features,
        "folds": settings.folds,
        "fold_seed": settings.seed,
    }
    return BlendedRunSettings.model_validate(shared | own)


def _inputs(parts: Sequence[Part]) -> dict[str, str]:
    """Hashes of the candidate file and of all rankings, by role."""
    rankings = {
        f"{split} {part.name}": answered.run.folder / "rankings.jsonl"
        for part in parts
        for split, answered in (("test", part.test), ("valid", part.valid))
    }
    return hash_files(candidates=parts[0].test.file, **rankings)


def _facts(
    blend: Blend,
    parts: Sequence[Part],
    rankings: Sequence[Sequence[Ranking]],
    settings: BlendedRunSettings,
    workspace: Workspace,
) -> dict[str, Any]:
    """What metrics.json keeps of a blend; `rankings` are its own, and those without each part."""
    names = list(settings.parts)
    added = _added(rankings, settings)
    others = [[other for other in names if other != name] for name in names]
    without = {
        name: _weights(fitted, rest) | {"adds": {metric: _plain(step) for metric, step in steps.items()}}
        for name, fitted, rest, steps in zip(names, blend.without, others, added, strict=True)
    }
    return {
        "parts": {
            part.name: {"test": _path(part.test, workspace), "valid": _path(part.valid, workspace)} for part in parts
        },
        "lists": {"fitted": blend.num_fitted, "left_out": blend.num_left_out},
        "whole": _weights(blend.whole, names),
        "without": without,
        "metric": VERDICT if VERDICT in added[0] else [*added[0]][-1],
    }


def _added(rankings: Sequence[Sequence[Ranking]], settings: BlendedRunSettings) -> list[dict[str, PairedDifference]]:
    """For each part the difference that it makes in each metric; those of one metric are a family.

    `rankings` are those of the blend, and of the blends without each part.
    """
    positions = [[position_of(ranking) for ranking in of_blend] for of_blend in rankings]
    names = metric_names(settings.top_k)
    empty = vacuous(positions[0], names)
    names = [name for name in names if name not in empty]
    pairs = [(number, 0) for number in range(1, len(positions))]
    steps = differences_of_pairs([per_user(own, names) for own in positions], names, pairs, seed=settings.seed)
    for name in names:
        steps = corrected_on(name, steps)
    return steps


def _weights(fitted: FittedWeights, names: Sequence[str]) -> dict[str, Any]:
    return {
        "weights": dict(zip(names, fitted.weights, strict=True)),
        "features": fitted.features,
        "penalty": fitted.penalty,
        "held_out_loss": {
            kind: {f"{penalty:g}": loss for penalty, loss in losses.items()}
            for kind, losses in fitted.held_out_loss.items()
        },
    }


def _plain(difference: PairedDifference) -> dict[str, Any]:
    return {
        **asdict(difference.interval),
        "p": difference.p,
        "p_holm": difference.p_holm,
        "detectable": difference.detectable,
    }


def _adds(kept: Mapping[str, Mapping[str, float]]) -> dict[str, PairedDifference]:
    """The differences by metric from what `_plain` kept of them."""
    return {
        name: PairedDifference(
            interval=Interval(value=own["value"], low=own["low"], high=own["high"]),
            p=own["p"],
            p_holm=own["p_holm"],
            detectable=own["detectable"],
        )
        for name, own in kept.items()
    }


def _path(answered: Answered, workspace: Workspace) -> str:
    """The folder of a RUN under the root, or whole where it lies elsewhere."""
    folder, root = answered.run.folder.resolve(), workspace.root.resolve()
    return str(folder.relative_to(root).as_posix() if folder.is_relative_to(root) else folder)


def _summary(made: Run, parts: Sequence[Part], what: str) -> Summary:
    facts = made.facts["blend"]
    metric = facts["metric"]
    adding = [name for name, own in facts["without"].items() if _adds(own["adds"])[metric].verdict == "better"]
    [shown_metric] = shown([metric], made)
    found = f"{', '.join(adding)} {'adds' if len(adding) == 1 else 'add'} to the others" if adding else "no part adds"
    return Summary(
        headline=f"{made.folder} {what}. At {shown_metric} {found}.",
        artifact=made.folder,
        tables=(results_table([*(part.test.run for part in parts), made]), blend_table(made)),
        facts={"blend": facts},
    )


def _cell(interval: Interval) -> str:
    return f"{interval.value:+.3f}\n{interval.low:+.3f} to {interval.high:+.3f}"
