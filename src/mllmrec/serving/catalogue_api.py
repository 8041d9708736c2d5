"""The routes that show a dataset: items and their images, users, RUNs, and the report."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.responses import FileResponse

from mllmrec.serving.bodies import LONGEST_NAME, DescribedItem, ItemsAnswer, Problem, RunAnswer, UserAnswer, UsersAnswer
from mllmrec.serving.service import Service

TYPES = {
    **dict.fromkeys((".jpg", ".jpeg"), "image/jpeg"),
    **dict.fromkeys((".tif", ".tiff"), "image/tiff"),
    **{suffix: f"image/{suffix[1:]}" for suffix in (".png", ".webp", ".bmp", ".gif", ".avif")},
}
CACHING = "private, max-age=86400, immutable"
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
"""The report is one file that holds its style, its script and its images; its own policy in it is narrower still."""
PROBLEMS: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": "No key, or a wrong one"},
    404: {"model": Problem, "description": "There is nothing of this name"},
    422: {"model": Problem, "description": "Not what is expected"},
    503: {"model": Problem, "description": "The models aren't loaded"},
}
Sought = Annotated[str, Query(max_length=LONGEST_NAME, description="Words that a name has to hold.")]
Limit = Annotated[int, Query(ge=1, le=1000)]
Offset = Annotated[int, Query(ge=0, le=1 << 31)]


def catalogue_router(service: Service) -> APIRouter:
    """The routes, for the dataset of a service."""
    router = APIRouter(tags=["dataset"], responses=PROBLEMS)

    @router.get("/v1/items", summary="Search the catalogue", response_model=ItemsAnswer)
    def items(query: Sought = "", limit: Limit = 20, offset: Offset = 0) -> dict[str, Any]:
        view = service.view
        found, total = view.names.search(query, limit, offset)
        return {"items": [view.described(item) for item in found], "total": total}

    @router.get("/v1/items/{item_id}", summary="One item", response_model=DescribedItem)
    def item(item_id: str) -> dict[str, Any]:
        found = service.view.names.id_of(item_id)
        if found is None:
            raise HTTPException(404, f"There is no item {item_id!r}. Look for it with /v1/items?query=.")
        return service.view.described(found)

    @router.get("/v1/users", summary="Search the users", response_model=UsersAnswer)
    def users(query: Sought = "", limit: Limit = 20, offset: Offset = 0) -> dict[str, Any]:
        history_of = service.recommender().history_of
        found = [user for user in service.view.users if query.casefold() in user.casefold()]
        part = found[offset : offset + limit]
        return {
            "users": [{"user_id": user, "length": len(history_of(user))} for user in part],
            "total": len(found),
        }

    @router.get("/v1/users/{user_id}", summary="One user", response_model=UserAnswer)
    def user(user_id: str) -> dict[str, Any]:
        view, user_id = service.view, service.recommender().user_id(user_id)
        frozen = view.lists.get(user_id)
        if frozen is None and user_id not in view.known_users:
            raise HTTPException(404, f"There is no user {user_id!r}. Look for one with /v1/users?query=.")
        history = service.recommender().history_of(user_id) if frozen is None else frozen.history
        return {
            "user_id": user_id,
            "history": [view.item(own) for own in history],
            "target": None if frozen is None or not frozen.target_id else view.item(frozen.target_id),
            "candidates": [] if frozen is None else frozen.candidates,
        }

    @router.get("/v1/run", summary="Figures of RUNs, curves, and the audit", response_model=RunAnswer)
    def run() -> dict[str, Any]:
        return service.view.results(service.audit)

    _add_files(router, service)
    return router


def _add_files(router: APIRouter, service: Service) -> None:
    @router.get("/report", summary="The report", response_class=FileResponse)
    def report() -> Response:
        path = service.view.report
        if path is None:
            dataset = service.settings.dataset
            raise HTTPException(404, f"{dataset} has no report. Make it with `mllmrec report --dataset {dataset}`.")
        return FileResponse(
            path,
            media_type="text/html; charset=utf-8",
            headers={"Content-Security-Policy": REPORT_POLICY, "Cache-Control": "no-cache"},
        )

    @router.get("/images/{item_id}", summary="The image of an item", response_class=FileResponse)
    def image(request: Request, item_id: str) -> Response:
        path = service.view.image(item_id)
        if path is None:
            raise HTTPException(404, f"There is no image of an item {item_id!r}.")
        facts = path.stat()
        tag = f'"{facts.st_mtime_ns:x}-{facts.st_size:x}"'
        headers = {"ETag": tag, "Cache-Control": CACHING}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return FileResponse(path, media_type=TYPES[path.suffix.lower()], headers=headers, stat_result=facts)
