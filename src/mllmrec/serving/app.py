"""The HTTP API: what a recommender does from Python, for everybody who is let in.

`make_app` gives an ASGI app that can be asked without a socket. It loads its models when it starts, in the background:
/readyz tells when they are there. Whatever computes is done by threads that `Service` bounds; `Guard` stands before all
of it. No part of a request becomes a path: images, users and items are looked up in what was read at the start.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException as StarletteHTTPException

from mllmrec import __version__
from mllmrec.errors import DataError, MllmrecError, SettingsError
from mllmrec.serving.catalogue_api import catalogue_router
from mllmrec.serving.guard import Guard, problem
from mllmrec.serving.metrics import Metrics
from mllmrec.serving.ranking_api import ranking_router
from mllmrec.serving.recommender import Recommender
from mllmrec.serving.rerank_api import rerank_router
from mllmrec.serving.scoring import AbandonedError
from mllmrec.serving.service import Service, open_models
from mllmrec.settings.serving import ServeSettings

STATIC = Path(str(files("mllmrec.serving").joinpath("static")))
Load = Callable[[], Sequence[Recommender]]


def make_app(settings: ServeSettings, load: Load | None = None, *, key: str = "", hosts: Sequence[str] = ()) -> FastAPI:
    """The app; `load` gives the models, by default those of the settings.

    `key` is what requests have to bear, and `hosts` are the names that they may know the server by (none: any).
    """
    metrics = Metrics()
    service = Service(settings, load or (lambda: open_models(settings)), metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.close()

    app = FastAPI(
        title="mllmrec",
        version=__version__,
        description="Ranks, recommendations and reasons of trained models.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(
        Guard,
        key=key,
        hosts=hosts,
        max_body=settings.max_body_kb * 1024,
        body_seconds=settings.deadline,
        metrics=metrics,
    )
    for error, answer in (
        (StarletteHTTPException, _refused),
        (RequestValidationError, _invalid),
        (MllmrecError, _failed),
    ):
        app.add_exception_handler(error, answer)
    app.add_exception_handler(AbandonedError, _given_up)
    app.include_router(ranking_router(service))
    app.include_router(rerank_router(service))
    app.include_router(catalogue_router(service))
    _add_state(app, service)
    _add_page(app)
    return app


def _add_state(app: FastAPI, service: Service) -> None:
    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz", summary="Does the process live?", tags=["state"])
    def health() -> dict[str, str]:
        return {"status": "alive"}

    @app.head("/readyz", include_in_schema=False)
    @app.get("/readyz", summary="Are the models loaded?", tags=["state"], responses={503: {"description": "Not yet"}})
    def ready() -> Response:
        if service.state == "ready":
            return problem(200, service.reason)
        return problem(503, service.reason)

    @app.get("/metrics", summary="Figures for Prometheus", tags=["state"], response_class=PlainTextResponse)
    def figures() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_page(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    def page() -> Response:
        if not (STATIC / "index.html").is_file():
            raise HTTPException(404, "This installation has no page; the API is described at /openapi.json.")
        return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})

    if STATIC.is_dir():
        app.mount("/static", StaticFiles(directory=STATIC))


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    return problem(error.status_code, str(error.detail), error.headers)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    kind = request.headers.get("content-type", "")
    if request.method == "POST" and "json" not in kind.lower():
        given = f"it came as {kind!r}" if kind else "none was given"
        return problem(422, f"The body has to be JSON, with the header Content-Type: application/json; {given}.")
    clauses = [f"{'.'.join(map(str, own['loc']))}: {own['msg']}" for own in error.errors()]
    return problem(422, f"The request isn't what was expected: {'; '.join(clauses)[:2000]}.")


async def _failed(_: Request, error: Exception) -> Response:
    return problem(400 if isinstance(error, (DataError, SettingsError)) else 500, str(error))


async def _given_up(_: Request, __: Exception) -> Response:
    return problem(503, "The question was given up. Ask again.")
