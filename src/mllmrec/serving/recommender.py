"""A trained model that recommends: candidates ranked by exact probabilities, and what the history did to them.

    recommender = Recommender.load("demo-workspace", "demo", "grpo")
    recommender.recommend(history, top_k=5)             # the retriever's best, reranked by the model
    recommender.rank(history, candidates)               # given candidates
    recommender.explain(history, item)                  # what leaving out each item of the history does

A probability is a candidate's share among the candidates that it was ranked with: exp(s_c) over the sum of exp(s), for
log-probabilities s of whole answers. Prompts, window, captions and budget are those that the model was trained with,
and candidates stand in the prompt in the order given, so that scores are those of `mllmrec evaluate` on the same lists.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Literal, TypedDict, Unpack

from mllmrec.data.raw_ids import RawIds
from mllmrec.data.sequences import Interactions, Line, by_user
from mllmrec.errors import DataError, SettingsError
from mllmrec.evaluation.baselines.families import Fitting
from mllmrec.evaluation.ranking.models import ModelChoice, choose_model, open_ranker
from mllmrec.evaluation.ranking.stage import window_of
from mllmrec.models.ranker import Ranker
from mllmrec.models.suitability import within_context
from mllmrec.serving.answers import Explanation, Question, RankedItem, Ranking, Reason, Scores, log_odds, shares
from mllmrec.serving.blends import ServedBlend
from mllmrec.serving.items import ItemNames, Named
from mllmrec.serving.reading import QuestionReader
from mllmrec.serving.retriever import CatalogueRetriever
from mllmrec.serving.scoring import SharedScoring
from mllmrec.settings.base import validated
from mllmrec.settings.serving import RecommenderSettings
from mllmrec.stages import with_window_of_dataset
from mllmrec.storage.workspace import Workspace

TOGETHER = 64
"""Questions that are scored together at most."""
EXPLAINED_AMONG = 20
"""Candidates among which an item is explained where none are given: the item and the best of the retriever."""


class LoadOptions(TypedDict, total=False):
    """Settings of `mllmrec recommend` that `Recommender.load` takes besides; README and --help describe them."""

    sft_tag: str
    backbone: str
    retriever: str
    blend: bool
    thoughts: int
    max_thought_tokens: int
    captions: Literal["auto", "on", "off"]
    max_prompt_tokens: int
    chat_template: str
    batch_tokens: int
    min_inter: int
    seed: int
    force: bool
    device: Literal["auto", "cpu", "cuda", "mps"]
    dtype: Literal["auto", "float32", "bfloat16", "float16"]


class Recommender:
    """A model of a workspace that is loaded and may be asked by several threads; `load` makes one."""

    def __init__(
        self,
        settings: RecommenderSettings,
        ranker: Ranker,
        choice: ModelChoice,
        interactions: Interactions,
        window: int,
    ) -> None:
        self.settings, self.ranker, self.choice = settings, ranker, choice
        self.interactions, self.window = interactions, window
        files = Workspace(settings.root).dataset(settings.dataset)
        raw_ids = RawIds.read(files.raw_ids)
        self.names = ItemNames(interactions.catalogue, raw_ids, interactions.pool("test"))
        self._user_ids = {raw: user for user, raw in raw_ids.users.items()}
        self.reader = QuestionReader(settings, ranker, choice, self.names, window)
        self.score = SharedScoring(self.reader.score, TOGETHER)
        self._fitting = Fitting(
            workspace=files.workspace,
            dataset=files.name,
            interactions=interactions,
            window=window,
            seed=settings.seed,
        )

    @classmethod
    def load(cls, root: str | Path, dataset: str, tag: str = "", **options: Unpack[LoadOptions]) -> Recommender:
        """Load the checkpoint `tag` of a dataset, or with none the `sft_tag` or `backbone`, from a workspace.

        Model, adapters, captions and window are those that the manifests name. Raises ArtifactError where the dataset
        or the checkpoint is missing, BackendError for a model that can't be scored exactly.
        """
        values = {"root": str(root), "dataset": dataset, "tag": tag, **options}
        return cls.open(validated(RecommenderSettings, values, "Recommender.load"))

    @classmethod
    def open(cls, settings: RecommenderSettings) -> Recommender:
        """As `load`, from settings."""
        workspace = Workspace(settings.root)
        settings = with_window_of_dataset(settings, workspace)
        choice = choose_model(settings, workspace)
        if choice.trained is None:
            settings = within_context(settings, choice.base)
        window = window_of(settings, choice)
        interactions = Interactions.load(workspace, settings.dataset)
        ranker = open_ranker(settings, workspace, choice, interactions.catalogue, window)
        _ = ranker.scorer  # A model that can't be scored exactly is refused here.
        return cls(settings, ranker, choice, interactions, window)

    @property
    def name(self) -> str:
        """The model's name: its tag, or that of its folder."""
        return self.choice.name

    @cached_property
    def retriever(self) -> CatalogueRetriever:
        """Who finds candidates in the catalogue; read or fitted when it is first asked for."""
        return CatalogueRetriever.open(self.settings.retriever, self._fitting)

    @cached_property
    def blend(self) -> ServedBlend | None:
        """The blend by which `recommend` ranks; None where none was made with this model, or none is wanted."""
        return ServedBlend.newest(self.choice, self._fitting) if self.settings.blend else None

    def rank(self, history: Sequence[Named], candidates: Sequence[Named], top_k: int | None = None) -> Ranking:
        """The `top_k` best candidates, or all, best first; equals keep their order.

        Raises DataError for an id or title that isn't in the catalogue, naming the nearest titles, and for a candidate
        that is given twice.
        """
        _check_counts(top_k=top_k)
        question = Question(history=history, candidates=candidates)
        return self.ranked(question, self.score([question])[0], top_k)

    def recommend(
        self, history: Sequence[Named], top_k: int = 10, retrieve: int = 100, exclude: Collection[str] = ()
    ) -> Ranking:
        """The best of the `retrieve` items that the retriever finds, without those of the history and `exclude`.

        Where a blend was made with this model, `probability` is a candidate's share by the blend.
        """
        _check_counts(top_k=top_k, retrieve=retrieve)
        candidates = self.retrieved(history, retrieve, exclude)
        if not candidates:
            return Ranking([], history_given=len(history), history_read=0)
        question = Question(history=history, candidates=candidates)
        [scores] = self.score([question])
        blended = None
        if self.blend is not None:
            whole, short = self.reader.whole(question), self.reader.example(question)
            blended = self.blend.log_shares(whole, short, scores.log_probabilities)
        return self.ranked(question, scores, top_k, blended)

    def retrieved(self, history: Sequence[Named], count: int, exclude: Collection[str] = ()) -> list[str]:
        """The retriever's best items, best first, without those of the history and `exclude`."""
        return self.retriever.best(self.names.resolve(history), count, self.names.resolve(exclude))

    def explain(
        self, history: Sequence[Named], item: Named, candidates: Sequence[Named] = (), blended: bool | None = None
    ) -> Explanation:
        """What leaving out each item of the history does to the log-odds of `item` among `candidates`.

        All are ranked anew for each item left out. Without `candidates` they are the item and the best of the
        retriever, and the shares those of the blend where there is one, as in `recommend`; with them those of the model
        alone, as in `rank`; `blended` says otherwise. The only candidate has infinite log-odds whatever the history,
        and effects that are NaN. Raises DataError as `rank` does, and where the item isn't among the candidates, and
        SettingsError for a blend that isn't there.
        """
        if blended and self.blend is None:
            raise SettingsError(
                f"There is no blend of {self.name} to explain. Make one with `mllmrec blend`, or ask "
                "for the model alone."
            )
        by_blend = self.blend is not None and (not candidates if blended is None else blended)
        [wanted] = self.names.resolve([item])
        if not candidates:
            found = [other for other in self.retrieved(history, EXPLAINED_AMONG) if other != wanted]
            candidates = [item, *found[: EXPLAINED_AMONG - 1]]
        ids = self.names.resolve(candidates)
        if wanted not in ids:
            raise DataError(f"{wanted} isn't among the candidates. Expected the item that is explained to be one.")
        read, scores = self._without_each(tuple(history), candidates)
        row, catalogue = ids.index(wanted), self.names.including([*read, *candidates])
        logs = [own.log_probabilities for own in scores]
        if by_blend:
            logs = [*self._blended_without_each(tuple(history), read, candidates, scores)]
        odds = log_odds(logs[0], row)
        return Explanation(
            item_id=wanted,
            title=catalogue.title(wanted),
            probability=shares(logs[0])[row],
            log_odds=odds,
            reasons=tuple(
                Reason(item_id=own, title=catalogue.title(own), effect=odds - log_odds(log, row))
                for own, log in zip(self.names.resolve(read), logs[1:], strict=True)
            ),
            candidates=tuple(ids),
            history_given=len(history),
            blend=self.blend.name if by_blend and self.blend else None,
            thoughts=scores[0].thoughts,
        )

    def ranked(
        self,
        question: Question,
        scores: Scores,
        top_k: int | None = None,
        blended: Sequence[float] | None = None,
    ) -> Ranking:
        """The best of a question's candidates by their scores, or by those of a blend; equals keep their order."""
        ids, catalogue = self.names.resolve(question.candidates), self.names.including(question.candidates)
        by = scores.log_probabilities if blended is None else blended
        share_C = shares(by)
        items = [
            RankedItem(
                item_id=ids[row],
                raw_id=self.names.raw(ids[row]),
                title=catalogue.title(ids[row]),
                probability=share_C[row],
                log_probability=scores.log_probabilities[row],
                index=row,
            )
            for row in sorted(range(len(ids)), key=lambda row: -by[row])[:top_k]
        ]
        return Ranking(items, history_given=len(question.history), history_read=scores.history_read)

    def _without_each(
        self, history: tuple[Named, ...], candidates: Sequence[Named]
    ) -> tuple[tuple[Named, ...], list[Scores]]:
        """What the model is shown of a history, and the scores after it and after it without each of its items."""
        read = history[-(self.window - 1) :]
        scores = self.score([Question(history=own, candidates=candidates) for own in _without_one(read)])
        if (shown := scores[0].history_read) < len(read):
            read = read[len(read) - shown :]
            scores = self.score([Question(history=own, candidates=candidates) for own in _without_one(read)])
        return read, scores

    def _blended_without_each(
        self, history: tuple[Named, ...], read: tuple[Named, ...], candidates: Sequence[Named], scores: Sequence[Scores]
    ) -> Iterator[tuple[float, ...]]:
        """The logs of the candidates' shares by the blend, for each of the scores of `_without_each`."""
        assert self.blend is not None, "who asks has looked"
        outside, older = max(0, len(history) - (self.window - 1)), history[: len(history) - len(read)]
        for own, found in zip(_without_one(read), scores, strict=True):
            whole = self.reader.whole(Question(history=(*older, *own), candidates=candidates))
            short = replace(whole, history=whole.history[outside:])
            yield tuple(self.blend.log_shares(whole, short, found.log_probabilities))

    def history_of(self, user: str) -> tuple[str, ...]:
        """What a user chose before the held-out test item, or all where there is none, oldest first.

        `user` is an id or a raw id. Of several lines the longest counts. Raises DataError for a user that the dataset
        doesn't know.
        """
        lines = self._users.get(self.user_id(user))
        if lines is None:
            raise DataError(
                f"{self.settings.dataset} has no user {user!r}. Expected one of {len(self._users):,}, such as "
                f"{next(iter(self._users))}."
            )
        tested = [line.items[:-1] for line in lines if line in self._tested]
        return max(tested or [line.items for line in lines], key=len)

    def user_id(self, name: str) -> str:
        """The id of a user who may be named by the raw id; the name itself where the dataset knows neither."""
        return name if name in self._users else self._user_ids.get(name, name)

    @property
    def users(self) -> list[str]:
        """All users of the dataset, in the order of its files."""
        return list(self._users)

    def met_by(self, user: str) -> frozenset[str]:
        """All items that a user is known to have met, but for held-out test items."""
        lines = self._users.get(self.user_id(user), ())
        return frozenset(item for line in lines for item in (line.items[:-1] if line in self._tested else line.items))

    @cached_property
    def _users(self) -> dict[str, list[Line]]:
        return by_user(self.interactions.lines_until("test"))

    @cached_property
    def _tested(self) -> frozenset[Line]:
        return frozenset(self.interactions.test)


def _without_one(history: Sequence[Named]) -> list[Sequence[Named]]:
    """The history, and the history without each of its items."""
    return [history, *([*history[:row], *history[row + 1 :]] for row in range(len(history)))]


def _check_counts(**counts: int | None) -> None:
    """Raise SettingsError for a number of items below 1."""
    for name, count in counts.items():
        if count is not None and count < 1:
            raise SettingsError(f"{name} = {count}: expected 1 or more.")
