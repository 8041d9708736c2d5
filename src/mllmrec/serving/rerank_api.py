"""The rerank API as clients of Cohere, Jina and vLLM speak it: the query is a history, the documents are candidates.

A query is JSON, {"user": "u17"} or {"history": ["12", "Toy Story"]}, or text: each line is an item of the history, the
oldest first. A document is a text or an object with one. Texts stand for items of the catalogue by id, raw id, whole
title, or as `[ITEM_12] Toy Story`, where the title may be left out and must else be that of the id. Any other text
becomes an item for this request alone, which the answer's `meta` says.

A document's `relevance_score` is the share of its item among all items of the documents: exp(s_c) over the sum of
exp(s), for log-probabilities s of whole answers. An item that several documents name is ranked once, and each of them
has its share.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import uuid4

from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mllmrec.errors import DataError
from mllmrec.records import Item
from mllmrec.serving.answers import Question, shares
from mllmrec.serving.items import ItemNames, Named
from mllmrec.serving.recommender import Recommender

API_VERSIONS = {"/rerank": "2", "/v1/rerank": "1", "/v2/rerank": "2"}
SHORTEST_LIMIT = 64
"""Characters that a text of the user's own may have at least; more where the catalogue has a longer title."""
_ITEM = re.compile(r"\[ITEM_([A-Za-z0-9_-][A-Za-z0-9._-]*)\](?:\s+(.*))?", re.DOTALL)


class Document(BaseModel):
    """A document as an object; its other keys are ignored."""

    text: str


class RerankBody(BaseModel):
    """What a client asks; fields that aren't named here are ignored. No `top_n`, and 0, ask for all documents."""

    model: str | None = None
    query: str = Field(pattern=r"\S")
    documents: list[str | Document] = Field(min_length=1)
    top_n: int | None = Field(None, ge=0)
    return_documents: bool | None = None

    @property
    def texts(self) -> list[str]:
        """The documents as they were given."""
        return [document if isinstance(document, str) else document.text for document in self.documents]


class OwnItem(BaseModel):
    """An item of a history that the catalogue lacks."""

    model_config = ConfigDict(coerce_numbers_to_str=True)
    id: str
    title: str


class JsonQuery(BaseModel):
    """A query in JSON."""

    model_config = ConfigDict(coerce_numbers_to_str=True)
    user: str | None = None
    history: list[str | OwnItem] | None = None


class Runner(Protocol):
    """How the server has work done that takes long, within its limits."""

    def __call__(self, request: Request, work: Callable[[], dict[str, Any]], /) -> Awaitable[dict[str, Any]]: ...


def rerank_router(recommender_of: Callable[[str | None], Recommender], run: Runner) -> APIRouter:
    """The routes; `recommender_of` gives the model of a name, or the default for none, and refuses an unknown name."""
    router = APIRouter()

    async def answer(request: Request, body: RerankBody) -> dict[str, Any]:
        recommender, version = recommender_of(body.model or None), API_VERSIONS[request.scope["route"].path]
        return await run(request, lambda: rerank(recommender, body, version))

    for path in API_VERSIONS:
        router.add_api_route(path, answer, methods=["POST"], summary="Rerank documents after a history")
    return router


def rerank(recommender: Recommender, body: RerankBody, api_version: str = "2") -> dict[str, Any]:
    """The documents by the log-probabilities of their items, best first; equals keep the order given.

    Raises DataError as `Recommender.rank` does, and HTTPException for an unknown user (404) or malformed JSON (422).
    """
    texts, given = body.texts, _history_of(recommender, body.query)
    lines = _lines(body.query)[-(recommender.window - 1) :] if given is None else []
    reading = read([*lines, *texts], recommender.names)
    history, documents = reading.items[: len(lines)], reading.items[len(lines) :]
    candidates = list(dict.fromkeys(documents))
    scores = recommender.score([Question(history=history if given is None else given, candidates=candidates)])[0]
    log_probability = dict(zip(candidates, scores.log_probabilities, strict=True))
    share = dict(zip(candidates, shares(scores.log_probabilities), strict=True))
    order = sorted(range(len(texts)), key=lambda index: -log_probability[documents[index]])
    results: list[dict[str, Any]] = [
        {"index": index, "relevance_score": share[documents[index]]} for index in order[: body.top_n or None]
    ]
    if body.return_documents:
        results = [result | {"document": {"text": texts[result["index"]]}} for result in results]
    unmatched: dict[str, list[Any]] = {
        "query": [line for line, item in zip(lines, history, strict=True) if isinstance(item, Item)],
        "documents": [index for index, item in enumerate(documents) if isinstance(item, Item)],
    }
    return {
        "id": f"rerank-{uuid4().hex}",
        "model": recommender.name,
        "results": results,
        "usage": {"total_tokens": scores.tokens},
        "meta": {
            "api_version": {"version": api_version},
            "billed_units": {"search_units": 1},
            "unmatched": unmatched,
            "warnings": [*_unmatched_warnings(unmatched), *reading.warnings],
        },
    }


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What texts stand for, in their order: ids, or items of the user's own, the same for the same text."""

    items: tuple[Named, ...]
    warnings: tuple[str, ...]


def read(texts: Sequence[str], names: ItemNames) -> Reading:
    """Find the items of texts.

    Of several items with the same title the first one counts. A text that stands for no item becomes one, with the
    text, cut where it is longer than any title, as its title.
    """
    found = [_find(text, names) for text in texts]
    limit = max(SHORTEST_LIMIT, names.longest_title)
    unknown: dict[str, str] = {}
    for ids, title in found:
        if not ids:
            unknown.setdefault(_folded(title), " ".join(title.split()))
    titles = [title if len(title) <= limit else f"{title[: limit - 1]}…" for title in unknown.values()]
    own = dict(zip(unknown, names.new_items(titles), strict=True))
    shared = {title: ids for ids, title in found if len(ids) > 1}
    num_cut = sum(len(title) > limit for title in unknown.values())
    warnings = [f"{len(ids)} items are called {title!r}: {ids[0]} was taken." for title, ids in shared.items()]
    if num_cut:
        warnings.append(f"Texts that were cut to {limit} characters, since no title is longer: {num_cut}.")
    return Reading(
        items=tuple(ids[0] if ids else own[_folded(title)] for ids, title in found), warnings=tuple(warnings)
    )


def _find(text: str, names: ItemNames) -> tuple[list[str], str]:
    """The ids that a text stands for, and the title in it."""
    text = text.strip()
    spelt = _ITEM.fullmatch(text)
    if spelt is None:
        return names.called(text), text
    item_id, title = spelt[1], (spelt[2] or "").strip()
    known = item_id in names and (not title or _folded(title) == _folded(names.catalogue.title(item_id)))
    return ([item_id] if known else []), title or text


def _folded(title: str) -> str:
    return " ".join(title.casefold().split())


def _lines(query: str) -> list[str]:
    return [line.strip() for line in query.splitlines() if line.strip()]


def _history_of(recommender: Recommender, query: str) -> list[Named] | None:
    """The history of a query in JSON; None where the query is text."""
    try:
        values = json.loads(query)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or not {"user", "history"} & set(values):
        return None
    try:
        asked = JsonQuery.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, ("query", *first["loc"])))
        raise HTTPException(422, f"{where}: {first['msg']}. Expected a user's name, or a list of items.") from None
    if (asked.user is None) == (asked.history is None):
        raise HTTPException(
            422, "query: Expected either a user or a history: whom, or what, should the ranking follow?"
        )
    if asked.user is not None:
        try:
            return list(recommender.history_of(asked.user))
        except DataError as error:
            raise HTTPException(404, str(error)) from None
    return [item if isinstance(item, str) else Item(item_id=item.id, title=item.title) for item in asked.history or ()]


def _unmatched_warnings(unmatched: dict[str, list[Any]]) -> list[str]:
    words = {"query": "Lines of the query", "documents": "Documents"}
    return [
        f"{words[part]} that stand for no item of the catalogue: {len(found)}. Each became an item for this request."
        for part, found in unmatched.items()
        if found
    ]
