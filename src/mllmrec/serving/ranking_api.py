"""The routes that ask a model: rank, recommend, explain, and which models there are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from fastapi import APIRouter, HTTPException, Request

from mllmrec.errors import DataError
from mllmrec.records import Item
from mllmrec.serving.answers import Explanation, Question, RankedItem, Ranking
from mllmrec.serving.bodies import (
    Asked,
    ExplainAnswer,
    ExplainBody,
    ModelsAnswer,
    Problem,
    RankAnswer,
    RankBody,
    RecommendAnswer,
    RecommendBody,
    named,
)
from mllmrec.serving.dataset_view import DatasetView, finite
from mllmrec.serving.items import Named
from mllmrec.serving.recommender import Recommender
from mllmrec.serving.service import Service
from mllmrec.settings.serving import ServeSettings

PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "Items that aren't known, are named ambiguously or given twice"},
    401: {"model": Problem, "description": "No key, or a wrong one"},
    404: {"model": Problem, "description": "No such model or user"},
    408: {"model": Problem, "description": "The body came too slowly"},
    413: {"model": Problem, "description": "The body is too large"},
    415: {"model": Problem, "description": "The body is compressed"},
    422: {"model": Problem, "description": "Not the body that is expected"},
    429: {"model": Problem, "description": "Too many questions at once; Retry-After tells when to come again"},
    503: {"model": Problem, "description": "The models aren't loaded"},
    504: {"model": Problem, "description": "No answer within the deadline"},
}
Body = TypeVar("Body", bound=Asked)
Work = Callable[[Recommender, Body, Sequence[Named]], dict[str, Any]]


def ranking_router(service: Service) -> APIRouter:
    """The routes, for the models of a service."""
    router = APIRouter(prefix="/v1", tags=["models"], responses=PROBLEMS)

    async def ask(request: Request, body: Body, work: Work[Body]) -> dict[str, Any]:
        started, recommender = time.perf_counter(), service.recommender(body.model)
        check_sizes(body, service.settings)

        def answer() -> dict[str, Any]:
            found = finite(work(recommender, body, history_of(recommender, body)))
            return {"model": recommender.name, **found, "seconds": round(time.perf_counter() - started, 6)}

        return await service.run(request, answer)

    @router.post("/rank", summary="Rank candidates after a history", response_model=RankAnswer)
    async def rank(request: Request, body: RankBody) -> dict[str, Any]:
        return await ask(request, body, _ranker(service.view))

    @router.post("/recommend", summary="Recommend items after a history", response_model=RecommendAnswer)
    async def recommend(request: Request, body: RecommendBody) -> dict[str, Any]:
        return await ask(request, body, _recommendation(service.view))

    @router.post("/explain", summary="What each item of a history does to a rank", response_model=ExplainAnswer)
    async def explain(request: Request, body: ExplainBody) -> dict[str, Any]:
        return await ask(request, body, _explanation(service.view))

    @router.get("/models", summary="The models that are served", response_model=ModelsAnswer)
    def models() -> dict[str, Any]:
        service.recommender()
        return {"data": [_model(recommender) for recommender in service.models.values()]}

    return router


def check_sizes(body: Asked, settings: ServeSettings) -> None:
    """422 for more items than the server takes."""
    asked = {
        "history": (len(body.history or ()), settings.max_history),
        "candidates": (len(getattr(body, "candidates", ())), settings.max_candidates),
        "exclude": (len(getattr(body, "exclude", ())), settings.max_history),
        "retrieve": (getattr(body, "retrieve", 0), settings.max_candidates),
    }
    for name, (count, most) in asked.items():
        if count > most:
            raise too_many(name, count, most)


def too_many(name: str, count: int, most: int) -> HTTPException:
    """The answer to a list that is longer than the server takes."""
    return HTTPException(422, f"{name}: {count:,} items are too many. Expected at most {most:,}.")


def _ranker(view: DatasetView) -> Work[RankBody]:
    def work(recommender: Recommender, body: RankBody, history: Sequence[Named]) -> dict[str, Any]:
        question = Question(history=history, candidates=named(body.candidates))
        [scores] = recommender.score([question])
        ranked = recommender.ranked(question, scores, body.top_k)
        return {"items": [*_ranked(view, ranked)], **_read(ranked), "tokens": scores.tokens}

    return work


def _recommendation(view: DatasetView) -> Work[RecommendBody]:
    def work(recommender: Recommender, body: RecommendBody, history: Sequence[Named]) -> dict[str, Any]:
        met = recommender.met_by(body.user) if body.user is not None else ()
        exclude = {*recommender.names.resolve(body.exclude), *met}
        found = recommender.recommend(history, body.top_k, body.retrieve, exclude)
        titles = {item.item_id: item.title for item in history if isinstance(item, Item)}
        return {
            "retriever": recommender.retriever.name,
            "blend": None if recommender.blend is None else recommender.blend.name,
            "history": [view.item(item, titles.get(item)) for item in recommender.names.resolve(history)],
            "items": [*_ranked(view, found)],
            **_read(found),
        }

    return work


def _explanation(view: DatasetView) -> Work[ExplainBody]:
    def work(recommender: Recommender, body: ExplainBody, history: Sequence[Named]) -> dict[str, Any]:
        [item] = named([body.item])
        why = recommender.explain(history, item, named(body.candidates), body.blended)
        return {
            "item": view.item(why.item_id, why.title),
            "probability": why.probability,
            "log_odds": why.log_odds,
            "reasons": [view.item(own.item_id, own.title) | {"effect": own.effect} for own in why.reasons],
            "candidates": why.candidates,
            "blend": why.blend,
            "thoughts": why.thoughts,
            **_read(why),
        }

    return work


def _read(found: Ranking | Explanation) -> dict[str, int]:
    return {"history_given": found.history_given, "history_read": found.history_read}


def _ranked(view: DatasetView, items: Sequence[RankedItem]) -> Iterator[dict[str, Any]]:
    for item in items:
        yield view.item(item.item_id, item.title) | {
            "probability": item.probability,
            "log_probability": item.log_probability,
            "index": item.index,
        }


def history_of(recommender: Recommender, body: Asked) -> list[Named]:
    """The history that is asked after; 404 for an unknown user."""
    if body.user is None:
        return named(body.history or [])
    try:
        return list(recommender.history_of(body.user))
    except DataError as error:
        raise HTTPException(404, str(error)) from None


def _model(recommender: Recommender) -> dict[str, Any]:
    return {
        "id": recommender.name,
        "dataset": recommender.settings.dataset,
        "base": Path(recommender.choice.base).name,
        "window": recommender.window,
        "captions": bool(recommender.ranker.encoder.renderer.captions),
        "thoughts": recommender.settings.thoughts,
        "retriever": recommender.retriever.name,
        "blend": None if recommender.blend is None else recommender.blend.name,
    }
