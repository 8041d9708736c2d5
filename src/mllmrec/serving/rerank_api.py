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
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mllmrec.records import Item
from mllmrec.serving.answers import Question, history_cut, shares
from mllmrec.serving.bodies import Asked
from mllmrec.serving.items import ItemNames, Named
from mllmrec.serving.ranking_api import PROBLEMS, check_sizes, history_of, too_many
from mllmrec.serving.recommender import Recommender
from mllmrec.serving.service import Service

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


class JsonQuery(Asked):
    """A query in JSON; ids may be numbers in it."""

    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True)


class RankedDocument(BaseModel):
    """A document's position in the request and the share of its item, with its text where that was asked for."""

    index: int
    relevance_score: float
    document: Document | None = None


class Unmatched(BaseModel):
    """Texts that stand for no item of the catalogue: lines of the query, and positions of documents."""

    query: list[str]
    documents: list[int]


class Meta(BaseModel):
    """What Cohere's clients read, and what became of the texts."""

    api_version: dict[str, str]
    billed_units: dict[str, int]
    unmatched: Unmatched
    warnings: list[str]


class RerankAnswer(BaseModel):
    """Documents, best first; `usage` counts the tokens that the model read."""

    id: str
    model: str
    results: list[RankedDocument]
    usage: dict[str, int]
    meta: Meta


def rerank_router(service: Service) -> APIRouter:
    """The routes, for the models of a service."""
    router = APIRouter(tags=["rerank"], responses=PROBLEMS)

    async def answer(request: Request, body: RerankBody) -> dict[str, Any]:
        recommender, most = service.recommender(body.model or None), service.settings.max_candidates
        if len(body.documents) > most:
            raise too_many("documents", len(body.documents), most)
        asked = asked_by(body.query)
        if asked is not None:
            check_sizes(asked, service.settings)
        version = API_VERSIONS[request.scope["route"].path]
        return await service.run(request, lambda: rerank(recommender, body, asked, version))

    for path in API_VERSIONS:
        router.add_api_route(
            path,
            answer,
            methods=["POST"],
            summary="Rerank documents after a history",
            response_model=RerankAnswer,
            response_model_exclude_unset=True,
        )
    return router


def rerank(recommender: Recommender, body: RerankBody, asked: JsonQuery | None, api_version: str) -> dict[str, Any]:
    """The documents by the log-probabilities of their items, best first; equals keep the order given.

    `asked` is the query where that is JSON. Raises DataError as `Recommender.rank` does, and 404 for an unknown user.
    """
    texts = body.texts
    given = _lines(body.query) if asked is None else []
    lines = given[-(recommender.window - 1) :]
    reading = read([*lines, *texts], recommender.names)
    history, documents = reading.items[: len(lines)], reading.items[len(lines) :]
    candidates = list(dict.fromkeys(documents))
    if asked is not None:
        history = tuple(history_of(recommender, asked))
    [scores] = recommender.score([Question(history=history, candidates=candidates)])
    cut = history_cut(max(len(given), len(history)), scores.history_read)
    log_probability = dict(zip(candidates, scores.log_probabilities, strict=True))
    share = dict(zip(candidates, shares(scores.log_probabilities), strict=True))
    order = sorted(range(len(texts)), key=lambda index: -log_probability[documents[index]])
    results: list[dict[str, Any]] = [
        {"index": index, "relevance_score": share[documents[index]]} for index in order[: body.top_n or None]
    ]
    if body.return_documents:
        results = [result | {"document": {"text": texts[result["index"]]}} for result in results]
    unmatched: dict[str, list[Any]] = {
        "query": [line for line, item in zip(lines, reading.items, strict=False) if isinstance(item, Item)],
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
            "warnings": [*_unmatched_warnings(unmatched), *reading.warnings, *([cut] if cut else [])],
        },
    }


def asked_by(query: str) -> JsonQuery | None:
    """What a query in JSON asks; None where it is text. 422 for JSON that names no user and no history rightly."""
    try:
        values = json.loads(query)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or not {"user", "history"} & set(values):
        return None
    try:
        return JsonQuery.model_validate(values)
    except ValidationError as error:
        clauses = [f"{'.'.join(map(str, ('query', *own['loc'])))}: {own['msg']}" for own in error.errors()]
        raise HTTPException(422, f"{'; '.join(clauses)[:2000]}. Expected either a user or a list of items.") from None


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What texts stand for, in their order: ids, or items of the user's own, the same for the same text."""

    items: tuple[Named, ...]
    warnings: tuple[str, ...]


def read(texts: Sequence[str], names: ItemNames) -> Reading:
    """Find the items of texts.

    Of several items with the same title the first one counts, and an id before a title; both are told. A text that
    stands for no item becomes one, with the text, cut where it is longer than any title, as its title.
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
    outvoted = {text: names.outvoted(text) for text in dict.fromkeys(text.strip() for text in texts)}
    warnings += [
        f"{text!r} is an id, and the title of {', '.join(others)}: the id was taken."
        for text, others in outvoted.items()
        if others
    ]
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


def _unmatched_warnings(unmatched: dict[str, list[Any]]) -> list[str]:
    words = {"query": "Lines of the query", "documents": "Documents"}
    return [
        f"{words[part]} that stand for no item of the catalogue: {len(found)}. Each became an item for this request."
        for part, found in unmatched.items()
        if found
    ]
