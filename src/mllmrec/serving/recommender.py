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

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Literal, TypedDict, Unpack

from mllmrec.data.prompts import TRAINED_CANDIDATES
from mllmrec.data.raw_ids import RawIds
from mllmrec.data.sequences import Interactions, Line, by_user
from mllmrec.errors import DataError, SettingsError
from mllmrec.evaluation.baselines.families import Fitting
from mllmrec.evaluation.ranking.chunks import scoring_task
from mllmrec.evaluation.ranking.models import ModelChoice, choose_model, open_ranker
from mllmrec.evaluation.ranking.stage import window_of
from mllmrec.evaluation.ranking.thoughts import rank_after_thoughts
from mllmrec.models.chat import Encoder
from mllmrec.models.ranker import Ranker
from mllmrec.models.suitability import within_context
from mllmrec.progress import note
from mllmrec.records import RankingExample, example_id
from mllmrec.serving.answers import Explanation, Question, RankedItem, Reason, Scores, log_odds, shares
from mllmrec.serving.blends import ServedBlend
from mllmrec.serving.items import ItemNames, Named
from mllmrec.serving.retriever import CatalogueRetriever
from mllmrec.serving.scoring import SharedScoring
from mllmrec.settings.base import validated
from mllmrec.settings.evaluation import EvaluateSettings
from mllmrec.settings.serving import RecommenderSettings
from mllmrec.stages import with_window_of_dataset
from mllmrec.storage.workspace import Workspace

TOGETHER = 64
"""Questions that are scored together at most."""
EXPLAINED_AMONG = 20
"""Candidates among which an item is explained where none are given: the item and the best of the retriever."""


THOUGHT_SETTINGS = ("thoughts", "thought_temperature", "max_thought_tokens", "seed", "score")


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
        self.score = SharedScoring(self._score, TOGETHER)
        self._cut_noted = False
        self._trained_budget = ranker.encoder.renderer.max_prompt_tokens
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

    def rank(self, history: Sequence[Named], candidates: Sequence[Named], top_k: int | None = None) -> list[RankedItem]:
        """The `top_k` best candidates, or all, best first; equals keep their order.

        Raises DataError for an id or title that isn't in the catalogue, naming the nearest titles, and for a candidate
        that is given twice.
        """
        _check_counts(top_k=top_k)
        question = Question(history=history, candidates=candidates)
        return self.ranked(question, self.score([question])[0].log_probabilities)[:top_k]

    def recommend(
        self, history: Sequence[Named], top_k: int = 10, retrieve: int = 100, exclude: Collection[str] = ()
    ) -> list[RankedItem]:
        """The best of the `retrieve` items that the retriever finds, without those of the history and `exclude`.

        Where a blend was made with this model, `probability` is a candidate's share by the blend.
        """
        _check_counts(top_k=top_k, retrieve=retrieve)
        candidates = self.retrieved(history, retrieve, exclude)
        if not candidates:
            return []
        question = Question(history=history, candidates=candidates)
        scores = self.score([question])[0].log_probabilities
        blended = None if self.blend is None else self.blend.log_shares(self._whole(question), scores)
        return self.ranked(question, scores, blended)[:top_k]

    def retrieved(self, history: Sequence[Named], count: int, exclude: Collection[str] = ()) -> list[str]:
        """The retriever's best items, best first, without those of the history and `exclude`."""
        return self.retriever.best(self.names.resolve(history), count, self.names.resolve(exclude))

    def explain(self, history: Sequence[Named], item: Named, candidates: Sequence[Named] = ()) -> Explanation:
        """What leaving out each item of the history does to the log-odds of `item` among `candidates`.

        All are ranked anew for each item left out. Without `candidates` they are the item and the best of the
        retriever. The only candidate has infinite log-odds whatever the history, and effects that are NaN. Raises
        DataError as `rank` does, and where the item isn't among the candidates.
        """
        [wanted] = self.names.resolve([item])
        if not candidates:
            found = [other for other in self.retrieved(history, EXPLAINED_AMONG) if other != wanted]
            candidates = [item, *found[: EXPLAINED_AMONG - 1]]
        ids, read = self.names.resolve(candidates), tuple(history[-(self.window - 1) :])
        if wanted not in ids:
            raise DataError(f"{wanted} isn't among the candidates. Expected the item that is explained to be one.")
        histories = [read, *((*read[:row], *read[row + 1 :]) for row in range(len(read)))]
        whole, *without = self.score([Question(history=own, candidates=candidates) for own in histories])
        row, catalogue = ids.index(wanted), self.names.including([*read, *candidates])
        odds = log_odds(whole.log_probabilities, row)
        return Explanation(
            item_id=wanted,
            title=catalogue.title(wanted),
            probability=shares(whole.log_probabilities)[row],
            log_odds=odds,
            reasons=tuple(
                Reason(item_id=own, title=catalogue.title(own), effect=odds - log_odds(scores.log_probabilities, row))
                for own, scores in zip(self.names.resolve(read), without, strict=True)
            ),
            candidates=tuple(ids),
            thoughts=whole.thoughts,
        )

    def ranked(
        self, question: Question, scores: Sequence[float], blended: Sequence[float] | None = None
    ) -> list[RankedItem]:
        """A question's candidates by their scores, or by those of a blend, best first; equals keep their order."""
        ids, catalogue = self.names.resolve(question.candidates), self.names.including(question.candidates)
        by = scores if blended is None else blended
        share_C = shares(by)
        return [
            RankedItem(
                item_id=ids[row],
                raw_id=self.names.raw(ids[row]),
                title=catalogue.title(ids[row]),
                probability=share_C[row],
                log_probability=scores[row],
                index=row,
            )
            for row in sorted(range(len(ids)), key=lambda row: -by[row])
        ]

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

    def _score(self, questions: Sequence[Question]) -> list[Scores]:
        """Scores of questions, read together; those about items that the catalogue lacks by an encoder of their own."""
        examples = [self._example(question) for question in questions]
        encoders = [self._encoder_for(question) for question in questions]
        shared = self.ranker.encoder
        own = [row for row, encoder in enumerate(encoders) if encoder is shared]
        found = dict(zip(own, self._read(shared, [examples[row] for row in own]), strict=True)) if own else {}
        for row, encoder in enumerate(encoders):
            if row not in found:
                [found[row]] = self._read(encoder, [examples[row]])
        return [found[row] for row in range(len(questions))]

    def _read(self, encoder: Encoder, examples: Sequence[RankingExample]) -> list[Scores]:
        """Scores of examples; those that need another budget are read apart from the others."""
        budgets = [self._budget(encoder, example) for example in examples]
        found: dict[int, Scores] = {}
        for budget in dict.fromkeys(budgets):
            rows = [row for row, own in enumerate(budgets) if own == budget]
            encoder.renderer.max_prompt_tokens = budget
            found |= zip(rows, self._read_within(encoder, [examples[row] for row in rows]), strict=True)
        encoder.renderer.max_prompt_tokens = self._trained_budget
        encoder.renderer.budget.clear()
        return [found[row] for row in range(len(examples))]

    def _budget(self, encoder: Encoder, example: RankingExample) -> int:
        """The tokens of a prompt: as trained, or as much for each line of a longer list as in training.

        The second where the first doesn't hold the whole history; `evaluate` would cut that, or refuse the list. A
        budget that was asked for stays. A history that is cut all the same is told, once; raises DataError where texts
        of the caller's own are the reason.
        """
        lines = self.window - 1 + (self.choice.trained.candidates if self.choice.trained else TRAINED_CANDIDATES)
        raised = self._trained_budget * max(lines, self.window - 1 + len(example.candidates)) // lines
        asked = "max_prompt_tokens" in self.settings.model_fields_set
        budgets = (self._trained_budget,) if asked else (self._trained_budget, raised)
        for budget in budgets:
            if _holds(encoder, example, budget):
                return budget
        budget = budgets[-1]
        own = [item for item in (*example.history, *example.candidates) if item not in self.names]
        if own:
            raise DataError(
                f"A prompt of {budget} tokens doesn't hold the whole history beside such long titles as that of "
                f"{own[0]}. Give shorter ones, or fewer items."
            )
        if not self._cut_noted:
            self._cut_noted = True
            note(
                f"Prompts of {budget} tokens don't hold the whole history of some questions: their oldest items are "
                "left out, as in `evaluate`. A larger --max-prompt-tokens holds more."
            )
        return budget

    def _read_within(self, encoder: Encoder, examples: Sequence[RankingExample]) -> list[Scores]:
        if self.settings.thoughts:
            known = {name: getattr(self.settings, name) for name in THOUGHT_SETTINGS}
            asked = EvaluateSettings(dataset=self.settings.dataset, **known)
            rows = rank_after_thoughts(asked, self.ranker, examples, encoder)
            return [
                Scores(
                    log_probabilities=tuple(row["scores"]),
                    tokens=sum(row["tokens"]) + sum(thought["tokens"] for thought in row["thoughts"]),
                    thoughts=tuple(thought["text"] for thought in row["thoughts"]),
                )
                for row in rows
            ]
        tasks = [scoring_task(example, encoder, self.settings.score) for example in examples]
        scores = dict(self.ranker.scorer.score(tasks))
        return [
            Scores(
                log_probabilities=tuple(scores[row]),
                tokens=len(task.prompt_T) + sum(map(len, task.answers_C)),
            )
            for row, task in enumerate(tasks)
        ]

    def _encoder_for(self, question: Question) -> Encoder:
        catalogue = self.names.including([*question.history, *question.candidates])
        if catalogue is self.names.catalogue:
            return self.ranker.encoder
        encoder = self.ranker.encoder
        return encoder.variant(catalogue, encoder.renderer.captions)

    def _example(self, question: Question) -> RankingExample:
        """The question as the model reads it: the end of the history, as long as its window."""
        whole = self._whole(question)
        return replace(whole, history=whole.history[-(self.window - 1) :])

    def _whole(self, question: Question) -> RankingExample:
        history, candidates = (tuple(self.names.resolve(own)) for own in (question.history, question.candidates))
        if not candidates:
            raise DataError("There are no candidates. Expected one or more ids or titles.")
        if len(set(candidates)) < len(candidates):
            twice = next(item for item in candidates if candidates.count(item) > 1)
            raise DataError(f"The candidate {twice} is given twice. Expected each candidate once.")
        key = example_id("", "", [*history, *candidates])
        return RankingExample(
            example_id=key, user_id="", history=history, candidates=candidates, target_id="", split="test"
        )


def _holds(encoder: Encoder, example: RankingExample, budget: int) -> bool:
    """Whether a prompt of so many tokens holds the whole history."""
    renderer = encoder.renderer
    renderer.max_prompt_tokens = budget
    renderer.budget.clear()
    with suppress(DataError):
        encoder.prompt_ids(example)
        return not renderer.budget["history_shortened"]
    return False


def _check_counts(**counts: int | None) -> None:
    """Raise SettingsError for a number of items below 1."""
    for name, count in counts.items():
        if count is not None and count < 1:
            raise SettingsError(f"{name} = {count}: expected 1 or more.")
