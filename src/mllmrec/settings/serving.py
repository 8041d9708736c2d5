"""Settings of the verbs that use a trained model: `recommend` and `serve`."""

from __future__ import annotations

import csv
import difflib
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, field_validator, model_validator

from mllmrec.settings.base import DatasetSettings, Names, knob, validated
from mllmrec.settings.data import RETRIEVERS
from mllmrec.settings.evaluation import ModelSettings, ReadingSettings, ThoughtSettings
from mllmrec.settings.texts import VariableName


def split_titles(value: Any) -> Any:
    """Ids and titles between commas; one that holds a comma stands in double quotes.

    >>> split_titles('12, "Good, the Bad and the Ugly, The"')
    ('12', 'Good, the Bad and the Ugly, The')
    """
    if isinstance(value, (str, int)):
        value = [value]
    if not isinstance(value, (list, tuple)) or not all(isinstance(entry, (str, int)) for entry in value):
        return value
    rows = csv.reader([" ".join(str(entry).splitlines()) for entry in value], skipinitialspace=True)
    return tuple(name.strip() for row in rows for name in row if name.strip())


Titles = Annotated[tuple[str, ...], BeforeValidator(split_titles)]


class RetrieverSettings(DatasetSettings):
    """Who gives a model candidates, and what its scores are blended with."""

    retriever: str = knob(
        "auto",
        f"Who finds candidates in the catalogue: {', '.join(RETRIEVERS)}; auto: the one that `mllmrec retrieve` or "
        "`baselines` fitted, else itemknn with its first settings, or popularity without its library.",
    )
    blend: bool = knob(
        True, "Add the other parts of the newest blend with this model to its scores, where there is one."
    )
    min_inter: int = knob(10, "Items in a window, history and target, of a model that wasn't trained here.", ge=2)
    seed: int = knob(42, "Seed of thoughts, and of the retriever's fit.", ge=0)

    @field_validator("retriever")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in ("auto", *RETRIEVERS):
            close = difflib.get_close_matches(name, RETRIEVERS, n=1)
            hint = f"did you mean {close[0]}" if close else f"expected auto, {', '.join(RETRIEVERS)}"
            raise ValueError(f"there is no retriever {name!r}; {hint}")
        return name


class RecommenderSettings(RetrieverSettings, ThoughtSettings, ModelSettings):
    """A model, and who gives it candidates."""


class RecommendSettings(RecommenderSettings):
    """Recommend items after a history, or rank given ones, with a trained model."""

    verb: ClassVar[str] = "recommend"

    user: str = knob("", "A user of the dataset, in place of --history; the held-out test item is left aside.")
    history: Titles = knob(
        (), "What was chosen, oldest first: ids or whole titles between commas; one with a comma in double quotes."
    )
    candidates: Titles = knob((), "Rank these alone, ids or whole titles; none: the best that the retriever finds.")
    top_k: int = knob(10, "Items to show, best first.", ge=1)
    retrieve: int = knob(100, "Candidates that the retriever finds.", ge=1)
    explain: int = knob(0, "Tell of the N best what leaving out each item of the history does to them.", ge=0)
    json_: bool = knob(False, "Print JSON in place of a table.")


class ServeSettings(RetrieverSettings, ThoughtSettings, ReadingSettings):
    """Serve trained models over HTTP: ranks, recommendations, reasons, a rerank API and a page to try them."""

    verb: ClassVar[str] = "serve"

    tag: Names = knob(..., "Checkpoints to serve, the first by default; give --tag again for each further one.")
    host: str = knob(
        "127.0.0.1",
        "Address to listen on; another than this machine's own needs a key, or --insecure.",
        operational=True,
    )
    port: int = knob(8000, "Port to listen on; 0: any free one, which is told.", ge=0, le=65535, operational=True)
    api_key_env: VariableName = knob(
        "MLLMREC_API_KEY",
        "Environment variable with the key that requests have to bear, if it is set.",
        operational=True,
    )
    insecure: bool = knob(False, "Let anybody who reaches --host ask, without a key.", operational=True)
    max_waiting: int = knob(
        64,
        "Questions in work or waiting at most; further ones are told to come again.",
        ge=1,
        le=1024,
        operational=True,
    )
    deadline: float = knob(60.0, "Seconds after which a question is given up.", gt=0, operational=True)
    max_body_kb: int = knob(256, "Largest body of a request, in KiB.", ge=1, operational=True)
    max_history: int = knob(1000, "Items of a history at most.", ge=1, operational=True)
    max_candidates: int = knob(1000, "Candidates of a question at most.", ge=1, operational=True)
    batching: bool = knob(True, "Let questions that wait share forward passes.", operational=True)

    @model_validator(mode="after")
    def _some_tags(self) -> Self:
        if not self.tag or len(set(self.tag)) < len(self.tag):
            raise ValueError(f"tag = {list(self.tag)}: expected one or more checkpoints, each once")
        return self

    def recommender(self, tag: str) -> RecommenderSettings:
        """The settings of one of the models."""
        shared = self.model_fields_set & set(RecommenderSettings.model_fields)
        values = {name: getattr(self, name) for name in shared}
        return validated(RecommenderSettings, values | {"tag": tag}, "mllmrec serve")
