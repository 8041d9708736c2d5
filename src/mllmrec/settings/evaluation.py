"""Settings of the verbs that measure: `evaluate`, `baselines`, `blend`, `probe`, `compare`, `verify` and `report`.

`RunSettings` is what every verb that ranks shares, `ModelRunSettings` what those that rank with a language model share.
"""

from __future__ import annotations

import difflib
from typing import ClassVar, Literal, Self

from pydantic import field_validator, model_validator

from mllmrec.records import Split
from mllmrec.settings.base import DatasetSettings, Integers, Names, StageSettings, knob
from mllmrec.settings.data import DEFAULT_RETRIEVER, Negatives, known_retriever

BASELINES = ("random", "popularity", "recency", "markov", "itemknn", "textknn", "sasrec", "bert4rec")
DEFAULT_BASELINES = ("random", "popularity", "markov")
RAW_IDS = knob(
    False, "Also write the rankings in the ids that the raw files had: rankings.raw-ids.jsonl.", operational=True
)

PROBES = (
    "position",
    "popularity",
    "length",
    "shuffled",
    "last-item",
    "no-history",
    "caption-swap",
    "title-mask",
    "hint",
)


class RunSettings(DatasetSettings):
    """Which candidate lists are ranked and which metrics are reported.

    The knobs that only pick the candidate file are operational: the file's hash is an input of every RUN and the
    file's name is part of the RUN's path, so the same file named in two ways is the same work.
    """

    split: Split = knob("test", "Split whose users are ranked: train, valid or test.", operational=True)
    num_neg: int = knob(9, "Negatives beside the target in each candidate list.", operational=True, ge=1)
    negatives: Negatives = knob(
        "uniform",
        "How lists were made: negatives drawn uniformly or by popularity, hard ones that a retriever chose, its top "
        "items as they come (rerank), or the whole catalogue (all; baselines alone).",
        operational=True,
    )
    retriever: str = knob(DEFAULT_RETRIEVER, "Whose lists, with --negatives hard or rerank.", operational=True)
    min_inter: int = knob(10, "Items in a window: history and target.", operational=True, ge=2)
    candidates: str | None = knob(
        None,
        "A candidate file by path, in place of --split, --num-neg, --negatives, --retriever and --min-inter.",
        operational=True,
    )
    seed: int = knob(42, "Seed of the candidate file, of random scores and of resampled intervals.", ge=0)
    top_k: Integers = knob((3, 5, 10), "Cut-offs K of HR@K and NDCG@K, comma-separated; HR@1 and MRR always come too.")
    limit: int | None = knob(
        None,
        "Rank a frozen slice of N users, drawn by hash of seed, split and user; a larger one holds it.",
        operational=True,
        ge=1,
    )

    _known_retriever = field_validator("retriever")(known_retriever)

    @property
    def variant(self) -> str:
        """What the name of a RUN by scores tells of how it was ranked, where that isn't the usual way."""
        return ""

    @field_validator("top_k")
    @classmethod
    def _positive(cls, top_k: tuple[int, ...]) -> tuple[int, ...]:
        if not top_k or min(top_k) < 1:
            raise ValueError(f"top_k = {list(top_k)}: expected one or more whole numbers of at least 1, such as 3,5,10")
        return tuple(sorted(set(top_k)))


class BaselinesSettings(RunSettings):
    """Rank the same candidates with models that know no language."""

    verb: ClassVar[str] = "baselines"

    names: Names = knob(DEFAULT_BASELINES, f"Baselines to run, comma-separated, or all: {', '.join(BASELINES)}.")
    history: Literal["both", "window", "full"] = knob(
        "both",
        "What baselines read of a user: the model's window, all before the target, or a RUN of each.",
        operational=True,
    )
    raw_ids: bool = RAW_IDS
    embedder: str = knob(
        "tfidf", "Vectors of textknn: tfidf, or a sentence-transformers model (folder or hub id).", operational=True
    )

    @field_validator("names")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if names == ("all",):
            return BASELINES
        if not names:
            raise ValueError(f"names is empty: expected some of {', '.join(BASELINES)}")
        for name in names:
            if name not in BASELINES:
                close = difflib.get_close_matches(name, BASELINES, n=1)
                hint = f"did you mean {close[0]}?" if close else f"expected some of {', '.join(BASELINES)}"
                raise ValueError(f"names: there is no baseline {name!r}; {hint}")
        return tuple(dict.fromkeys(names))


class BaselineFitSettings(DatasetSettings):
    """What decides how a baseline is tuned and fitted; kept in the manifest of its cache."""

    verb: ClassVar[str] = "baselines"

    name: str = knob(..., "Baseline.")
    seed: int = knob(42, "Seed of tuning lists and of what is drawn while it learns.", ge=0)
    min_inter: int = knob(10, "Items in a window: history and target.", ge=2)


class BlendSettings(StageSettings):
    """Blend the scores of several RUNs, with weights fitted on validation, and tell what each of them adds."""

    verb: ClassVar[str] = "blend"

    runs: Names = knob(..., "RUN folders on the test split, all on the same lists.", positional=True)
    on: Names = knob(..., "RUN folders of the same recommenders on the validation split, in the same order.")
    name: str = knob("", "Name of the blend's RUN; none: blend-A-B of RUNs named A and B.")
    features: Literal["auto", "scores", "ranks"] = knob(
        "auto",
        "What weights multiply, standardised within a list: a part's scores, or their ranks; auto: what predicts the "
        "targets of validation users left out better.",
    )
    folds: int = knob(5, "Parts of the validation users, by hash, of which each judges what the others fit.", ge=2)
    seed: int = knob(42, "Seed of the folds; the intervals have that of the first RUN.", ge=0)

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if len(self.runs) < 2:
            raise ValueError(
                "expected two RUN folders or more to blend, such as result/shop/itemknn/test_uni9_w10_s42 "
                "result/shop/sasrec/test_uni9_w10_s42"
            )
        if len(self.on) != len(self.runs):
            raise ValueError(
                f"{len(self.runs)} RUNs and {len(self.on)} behind --on: expected for each RUN on test the one of the "
                "same recommender on validation, in the same order"
            )
        return self


class BlendedRunSettings(RunSettings):
    """What decides the RUN of a blend; kept in its manifest. What RUNs share comes from the first of `parts`."""

    verb: ClassVar[str] = "blend"

    parts: Names = knob(..., "Names of the RUNs that are blended.")
    features: Literal["auto", "scores", "ranks"] = knob("auto", "What weights multiply.")
    folds: int = knob(5, "Parts of the validation users.", ge=2)
    fold_seed: int = knob(42, "Seed of the folds.", ge=0)


class CompareSettings(StageSettings):
    """Paired differences of RUNs from the first one, with intervals and corrected p-values."""

    verb: ClassVar[str] = "compare"

    runs: tuple[str, ...] = knob(
        ...,
        "RUN folders; each is compared with the first. Seeds of one configuration: A1,A2,A3 B1,B2,B3.",
    )
    metrics: Names = knob((), "Metrics to compare, comma-separated; all by default. p-values are corrected for these.")
    seed: int = knob(42, "Seed of the resampling.", ge=0)

    @field_validator("runs")
    @classmethod
    def _at_least_two(cls, runs: tuple[str, ...]) -> tuple[str, ...]:
        if len(runs) < 2:
            raise ValueError("expected two RUN folders or more, such as result/shop/markov/test_uni9_w10_s42")
        return runs


class VerifySettings(StageSettings):
    """Recompute every figure of RUNs from their rankings with a second implementation."""

    verb: ClassVar[str] = "verify"

    runs: tuple[str, ...] = knob(..., "RUN folders to check.")
    candidates: str | None = knob(None, "Candidate file they ranked; by default the one their settings name.")

    @field_validator("runs")
    @classmethod
    def _at_least_one(cls, runs: tuple[str, ...]) -> tuple[str, ...]:
        if not runs:
            raise ValueError("expected a RUN folder or more, such as result/shop/markov/test_uni9_w10_s42")
        return runs


class CheckpointSettings(DatasetSettings):
    """Which model is opened."""

    backbone: str = knob("Qwen3-4B", "Model folder under the root, any path, or hub id.", operational=True)
    sft_tag: str = knob("", "Merged (or full) SFT model, in place of the backbone.", operational=True)
    tag: str = knob("", "Checkpoint: adapters on the model, or a full model.", operational=True)


class ReadingSettings(DatasetSettings):
    """What a model's prompts hold, and how it reads them."""

    score: Literal["answer", "id"] = knob("answer", "What is scored: the whole answer, or its id alone.")
    captions: Literal["auto", "on", "off"] = knob("auto", "Captions in prompts; auto: as the checkpoint was trained.")
    max_prompt_tokens: int = knob(
        4096, "Budget of a prompt, as trained unless given; captions shorten first, then old history.", ge=64
    )
    chat_template: str = knob(
        "",
        "plain, or a file with a chat template (Jinja), in place of the model's own; a model without one is asked in "
        "the plain one.",
    )
    batch_tokens: int = knob(
        8192, "Tokens in one forward pass, padding included; at most 2,048 on a CPU.", ge=256, operational=True
    )
    layout: Literal["auto", "tree", "cache", "apart"] = knob(
        "auto",
        "How candidates are read: one tree behind the prompt, rows behind its cache, or whole texts; auto: the "
        "cheapest that the model can read.",
        operational=True,
    )
    force: bool = knob(False, "Load adapters on another model than they were trained on.")
    device: Literal["auto", "cpu", "cuda", "mps"] = knob("auto", "Where to compute.", operational=True)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = knob(
        "auto", "Number format of the weights; auto: bfloat16 on a GPU, float32 elsewhere."
    )

    @property
    def written_tokens(self) -> int:
        """The most tokens that the model writes by itself behind a prompt."""
        return 0


class ModelSettings(ReadingSettings, CheckpointSettings):
    """Which model ranks, and what its prompts hold."""


class ThoughtSettings(DatasetSettings):
    """What a model thinks before its answers are scored."""

    thoughts: int = knob(
        0, "Thoughts sampled for each user before scoring; shares of the candidates are averaged over them.", ge=0
    )
    thought_temperature: float = knob(1.0, "Temperature at which thoughts are sampled.", gt=0)
    max_thought_tokens: int = knob(256, "Longest thought; one that goes on is closed there, and counted.", ge=1)

    @property
    def written_tokens(self) -> int:
        return self.max_thought_tokens if self.thoughts else 0


class ModelRunSettings(ModelSettings, RunSettings):
    """A model, and the candidate lists that it ranks."""

    @property
    def variant(self) -> str:
        return "_id" if self.score == "id" else ""


class EvaluateSettings(ThoughtSettings, ModelRunSettings):
    """Rank frozen candidates with a model; HR, NDCG and MRR with intervals."""

    verb: ClassVar[str] = "evaluate"

    method: Literal["score", "generate"] = knob("score", "Exact scores of all candidates, or generated answers.")
    list_prompt: bool = knob(False, "With generate: ask for K ids in one answer, as the reference does.")
    max_answer_tokens: int = knob(64, "Longest generated answer, for each of its lines.", ge=8)
    raw_ids: bool = RAW_IDS
    batch: int = knob(1, "Users for whom answers or thoughts are written at a time.", ge=1, operational=True)
    shard: str = knob(
        "", "Rank part i of n of the users only, written i/n; parts join by themselves.", operational=True
    )
    distributed: bool = knob(False, "Accepted for compatibility; the launcher's environment decides.", operational=True)

    @property
    def variant(self) -> str:
        return super().variant + (f"_thoughts{self.thoughts}" if self.thoughts else "")

    @property
    def written_tokens(self) -> int:
        if self.method == "generate":
            return self.max_answer_tokens * (self.num_answers if self.list_prompt else 1)
        return super().written_tokens

    @model_validator(mode="after")
    def _thoughts_are_scored_after(self) -> Self:
        if self.thoughts and self.method == "generate":
            raise ValueError(
                "thoughts come before exact scores; expected --method score with them (a model that thinks by itself "
                "while it generates needs --max-answer-tokens that leave room for it)"
            )
        return self

    @property
    def num_answers(self) -> int:
        """How many answers a user's ranking is made of; 0 when it is made of scores."""
        return max(self.top_k) if self.method == "generate" else 0

    @field_validator("shard")
    @classmethod
    def _shard(cls, value: str) -> str:
        part, slash, parts = value.partition("/")
        if value and not (slash and part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts)):
            raise ValueError(f"shard = {value!r}: expected i/n with i from 1 to n, such as 1/4")
        return value


class ProbeSettings(ModelRunSettings):
    """Ask a model the same questions in other words: does it go by position, popularity, history, order, captions?"""

    verb: ClassVar[str] = "probe"

    probes: Names = knob(PROBES, f"Probes to make, comma-separated: {', '.join(PROBES)}.", operational=True)
    rotations: int = knob(
        10,
        "Rotations of each candidate list, evenly spaced, the list as it stands included; never more than candidates.",
        operational=True,
        ge=2,
    )
    top_k: Integers = knob(
        (3, 5, 10),
        "Cut-offs K of HR@K and NDCG@K, comma-separated; HR@1 and MRR always come too.",
        operational=True,
    )
    limit: int | None = knob(
        None, "Probe a fixed slice of N users, drawn by hash; a larger N later extends it.", operational=True, ge=1
    )

    @field_validator("probes")
    @classmethod
    def _known(cls, probes: tuple[str, ...]) -> tuple[str, ...]:
        if not probes:
            raise ValueError(f"probes is empty: expected some of {', '.join(PROBES)}")
        for name in probes:
            if name not in PROBES:
                close = difflib.get_close_matches(name, PROBES, n=1)
                hint = f"did you mean {close[0]}?" if close else f"expected some of {', '.join(PROBES)}"
                raise ValueError(f"probes: there is no probe {name!r}; {hint}")
        return tuple(name for name in PROBES if name in probes)


class ReportSettings(DatasetSettings):
    """Write one page that shows all that is known: ladder, differences, curves, probes, audit, costs, cases.

    Nothing is trained or ranked for it, so it takes seconds, and it is written anew each time.
    """

    verb: ClassVar[str] = "report"

    metric: str = knob("NDCG@3", "Metric of the figures and of the verdict, where a RUN has it: NDCG@K, HR@K or MRR.")
    cases: int = knob(20, "Worked cases to show; users are drawn by hash.", ge=0)
    run: str = knob("", "Name of the RUN whose cases are shown; none: the last model of the ladder.")
    audit: bool = knob(True, "Audit the dataset's files for leaks, which takes a few seconds.")
    raw_ids: bool = knob(False, "Name users and untitled items by the ids that the raw files had.", operational=True)
    seed: int = knob(42, "Seed of the resampling and of the draws.", ge=0)

    @field_validator("metric")
    @classmethod
    def _known(cls, metric: str) -> str:
        kind, _, cut = metric.partition("@")
        if metric != "MRR" and not (kind in ("HR", "NDCG") and cut.isdecimal() and int(cut) > 0):
            raise ValueError(f"metric = {metric!r}: expected NDCG@K, HR@K or MRR, such as NDCG@3")
        return metric
