"""What clients send and get: the bodies of requests and answers, as the OpenAPI document describes them."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mllmrec.data.prompts import plain
from mllmrec.records import Item
from mllmrec.serving.items import Named

LONGEST_NAME = 500
Text = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]


class OwnItem(BaseModel):
    """An item that the catalogue lacks."""

    model_config = ConfigDict(extra="forbid")
    id: Text
    title: Text

    @field_validator("title")
    @classmethod
    def _legible(cls, title: str) -> str:
        if not plain(title):
            raise ValueError("nothing of this title can be read; expected words")
        return title


ItemName = Annotated[Text | OwnItem, Field(description="An id, a raw id, a whole title, or an item of one's own.")]


class Asked(BaseModel):
    """After whom, or after what, is asked: either a user of the dataset or a history, oldest first."""

    model_config = ConfigDict(extra="forbid")
    history: list[ItemName] | None = Field(None, description="What was chosen, oldest first.", examples=[["i12", "i7"]])
    user: Text | None = Field(None, description="A user, in place of a history; the held-out item is left aside.")
    model: Text | None = Field(None, description="One of the served models; the first one without.")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.history is None) == (self.user is None):
            raise ValueError("expected either a user or a history")
        return self


class RankBody(Asked):
    """Candidates to rank."""

    candidates: list[ItemName] = Field(min_length=1, examples=[["i3", "i9", "i31"]])
    top_k: Count | None = Field(None, description="The best K alone; all without.")


class RecommendBody(Asked):
    """How many items to recommend."""

    top_k: Count = 10
    retrieve: Count = Field(100, description="Candidates that the retriever finds, of which the model ranks each.")
    exclude: list[Text] = Field(default=[], description="Items that aren't wanted.", examples=[["i3"]])


class ExplainBody(Asked):
    """An item whose rank is explained."""

    item: ItemName = Field(examples=["i31"])
    candidates: list[ItemName] = Field(default=[], description="Among which; by default the retriever's best.")
    blended: bool | None = Field(
        None,
        description="Whether shares are those of the model's blend, as in /v1/recommend, or of the model alone, as in "
        "/v1/rank; by default the first without candidates where there is a blend, else the second.",
    )


class ShownItem(BaseModel):
    """An item."""

    item_id: str
    raw_id: str
    title: str
    image: str | None
    caption: str | None


class DescribedItem(ShownItem):
    """An item with the further columns of its row."""

    attributes: dict[str, str]


class RankedShownItem(ShownItem):
    """A candidate: its share, the log-probability of its whole answer in nats, and its position in the list asked."""

    probability: float
    log_probability: float | None
    index: int


class ReasonShown(ShownItem):
    """An item of the history: what it does to the log-odds, in nats."""

    effect: float | None


class HistoryRead(BaseModel):
    """How much of the history the model was shown: the last `history_read` of the `history_given` items."""

    history_given: int
    history_read: int


class RankAnswer(HistoryRead):
    """Candidates, best first."""

    model: str
    items: list[RankedShownItem]
    tokens: int
    seconds: float


class RecommendAnswer(HistoryRead):
    """Recommendations, best first."""

    model: str
    retriever: str
    blend: str | None
    history: list[ShownItem]
    items: list[RankedShownItem]
    seconds: float


class ExplainAnswer(HistoryRead):
    """Why an item stands where it stands among the candidates: by the blend that is named, or by the model alone."""

    model: str
    item: ShownItem
    probability: float
    log_odds: float | None
    reasons: list[ReasonShown]
    candidates: list[str]
    blend: str | None
    thoughts: list[str]
    seconds: float


class ItemsAnswer(BaseModel):
    """A part of the catalogue, and how many items there are in all."""

    items: list[DescribedItem]
    total: int


class ShownUser(BaseModel):
    """A user, and the length of the history."""

    user_id: str
    length: int


class UsersAnswer(BaseModel):
    """A part of the users, and how many there are in all."""

    users: list[ShownUser]
    total: int


class UserAnswer(BaseModel):
    """A user's history, with the held-out item and the frozen candidates where there are any."""

    user_id: str
    history: list[ShownItem]
    target: ShownItem | None
    candidates: list[str]


class ServedModel(BaseModel):
    """A model that is served."""

    id: str
    object: str = "model"
    dataset: str
    base: str
    window: int
    captions: bool
    thoughts: int
    retriever: str
    blend: str | None


class ModelsAnswer(BaseModel):
    """The models, the default one first."""

    object: str = "list"
    data: list[ServedModel]


class RunAnswer(BaseModel):
    """What is known of the dataset's RUNs and trainings."""

    dataset: str
    report: bool
    runs: list[dict[str, Any]]
    audit: dict[str, Any] | None
    curves: dict[str, list[dict[str, Any]]]


class Problem(BaseModel):
    """Why a request wasn't served, in one paragraph."""

    detail: str
    message: str


def named(items: list[Text | OwnItem]) -> list[Named]:
    """Items as a recommender is given them."""
    return [item if isinstance(item, str) else Item(item_id=item.id, title=item.title) for item in items]
