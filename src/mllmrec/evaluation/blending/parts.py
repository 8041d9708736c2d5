"""The parts of a blend: RUNs on test, each with the RUN of the same recommender on validation, and their lists joined.

Weights are fitted on validation lists and used on test lists, which says something about the parts only if each was the
same recommender both times, if all were asked the same questions, and if no question of the test was among those of
the validation. Whatever stands against that is refused here, in words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllmrec.errors import ArtifactError, DataError, SettingsError
from mllmrec.evaluation.comparison.pairing import paired_positions, read_unaltered, run_named
from mllmrec.evaluation.ranking.runs import Run, ranked_examples, ranked_file
from mllmrec.records import Ranking, RankingExample, Split
from mllmrec.settings.evaluation import BlendSettings
from mllmrec.storage.manifests import Manifest
from mllmrec.storage.workspace import DatasetFiles, Workspace, cached_sha256

OF_THE_QUESTION = ("candidates", "slice")
"""Inputs of a RUN that tell what was asked, and not who answered."""
OF_THE_SUMMARY = ("top_k", "limit")
Scored = tuple[Ranking, list[tuple[float, ...]]]
"""A list, as the first part ranked it, and the scores that each part gave its candidates."""


@dataclass(frozen=True, kw_only=True)
class Answered:
    """A RUN with its manifest, the candidate file that it ranked and the examples of that file."""

    run: Run
    manifest: Manifest
    file: Path
    examples: Sequence[RankingExample]

    @property
    def window(self) -> int:
        return max(len(example.history) for example in self.examples) + 1


@dataclass(frozen=True, kw_only=True)
class Part:
    """One recommender: its RUN on test and its RUN on validation."""

    test: Answered
    valid: Answered

    @property
    def name(self) -> str:
        return str(self.test.run.facts["name"])


def read_parts(settings: BlendSettings, workspace: Workspace) -> list[Part]:
    """The parts that the settings name, checked; see the module's docstring.

    Raises ArtifactError for a RUN that is missing, unfinished or altered or whose candidate file is gone, SettingsError
    for RUNs that were given wrongly, DataError for RUNs that can't be blended.
    """
    test_folders = [run_named(word, workspace) for word in settings.runs]
    valid_folders = [run_named(word, workspace) for word in settings.on]
    _refuse_repeated([*test_folders, *valid_folders])
    parts = [
        Part(test=_answered(one, "test", workspace), valid=_answered(other, "valid", workspace))
        for one, other in zip(test_folders, valid_folders, strict=True)
    ]
    for part in parts:
        _check_same_recommender(part)
        _check_same_kind_of_lists(part)
    names = [part.name for part in parts]
    if twice := [name for name in names if names.count(name) > 1]:
        raise SettingsError(
            f"Two of the RUNs are of {twice[0]}. Expected each recommender once: its copy would only share its weight."
        )
    _check_no_test_question(parts[0])
    return parts


def scored_lists(runs: Sequence[Run]) -> list[Scored]:
    """The lists that all these RUNs ranked, in the order of the first, each with the scores of all.

    Raises DataError where the RUNs ranked different lists, or kept only the best of each.
    """
    paired_positions(runs)
    first, *others = [list(run.rankings()) for run in runs]
    scores = [{ranking.example_id: ranking.scores for ranking in rankings} for rankings in others]
    for ranking in first:
        if ranking.num_candidates is not None:
            raise DataError(
                f"{runs[0].folder} keeps the best {len(ranking.candidates)} of {ranking.num_candidates} candidates of "
                f"user {ranking.user_id}, and other RUNs keep others. Expected the scores of whole lists; blend RUNs "
                "on drawn lists, or on those of `mllmrec retrieve --rerank`."
            )
    return [(own, [own.scores, *(other[own.example_id] for other in scores)]) for own in first]


def _answered(folder: Path, split: Split, workspace: Workspace) -> Answered:
    """A RUN of this split, with scores."""
    run, manifest = read_unaltered(folder), Manifest.read(folder)
    assert manifest is not None, "a finished RUN has a manifest"
    if run.facts["method"] == "generate":
        raise DataError(
            f"{folder} ranks by answers that the model wrote: what none of them names has no score, and the others "
            "have their place for one. Expected scores of all candidates; rank with `mllmrec evaluate --method score`."
        )
    files = DatasetFiles.of(folder)
    roots = [workspace.root, *([files.workspace.root] if files is not None else [])]
    file = ranked_file(run, roots, manifest.settings.get("candidates"))
    if file is None or cached_sha256(file) != run.facts["candidates_sha256"]:
        raise ArtifactError(
            f"{folder} ranked {run.facts['candidates']}, which is gone or was changed since. Expected the frozen file, "
            "which tells the split of its lists; put it back, or make the file and the RUN again."
        )
    examples = ranked_examples(file, run, manifest.settings, workspace)
    splits = sorted({example.split for example in examples})
    if splits != [split]:
        where = "before --on" if split == "test" else "behind --on"
        raise DataError(
            f"{folder} stands {where} and ranked lists of the split {' and '.join(splits)}. Expected {split}: weights "
            "are fitted on validation and used on test, never the other way round, and never on what was trained on. "
            f"Rank lists of `mllmrec candidates --split {split}`."
        )
    return Answered(run=run, manifest=manifest, file=file, examples=examples)


def _refuse_repeated(folders: Sequence[Path]) -> None:
    resolved = [folder.resolve() for folder in folders]
    for folder in folders:
        if resolved.count(folder.resolve()) > 1:
            raise SettingsError(f"{folder} was given twice. Expected each RUN once.")


def _check_same_recommender(part: Part) -> None:
    """Require the same name, verb, settings and inputs, models and adapters included, but for what was asked."""
    test, valid = part.test, part.valid
    clauses = [
        f"{what} is {one!r} and {other!r}"
        for what, one, other in (
            ("the name", part.name, valid.run.facts["name"]),
            ("the dataset", test.run.facts["dataset"], valid.run.facts["dataset"]),
            ("the verb", test.manifest.verb, valid.manifest.verb),
        )
        if one != other
    ]
    clauses += [
        f"{name} is {one!r} and {other!r}"
        for name, one, other in _differing(test.manifest.result_settings, valid.manifest.result_settings)
        if name not in OF_THE_SUMMARY
    ]
    # A baseline reads valid.tsv for its validation lists; a tuned one reads it always.
    clauses += [
        f"{name} was another"
        for name, one, other in _differing(test.manifest.inputs, valid.manifest.inputs)
        if name not in OF_THE_QUESTION and not (name == "valid" and None in (one, other))
    ]
    if clauses:
        raise DataError(
            f"{test.run.folder} and {valid.run.folder} aren't of the same recommender: {'; '.join(clauses)}. Expected "
            "behind --on, in the order of the RUNs, what the same model or baseline ranked on validation lists; a "
            "weight fitted on another one says nothing about this."
        )


def _differing(ours: dict[str, Any], theirs: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    return [
        (name, ours.get(name), theirs.get(name))
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    ]


def _check_same_kind_of_lists(part: Part) -> None:
    test, valid = part.test, part.valid
    for what, one, other in (
        ("lists of the protocol", test.run.facts["protocol"], valid.run.facts["protocol"]),
        ("windows of", test.window, valid.window),
    ):
        if one != other:
            raise DataError(
                f"{test.run.folder} ranked {what} {one} and {valid.run.folder} {what} {other}. Expected the same kind "
                "of lists on both splits: with others the parts would count otherwise. Draw the validation lists as "
                "those of the test were drawn, and rank them."
            )


def _check_no_test_question(part: Part) -> None:
    asked = {example.example_id for example in part.valid.examples}
    if both := [example for example in part.test.examples if example.example_id in asked]:
        raise DataError(
            f"{part.test.file} and {part.valid.file} share {len(both)} examples, such as {both[0].example_id} of user "
            f"{both[0].user_id}. Expected no question of the test among those that weights are fitted on; look at the "
            "splits with `mllmrec audit`."
        )
