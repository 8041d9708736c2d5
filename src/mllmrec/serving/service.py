"""The models of a server, and how they are asked: by threads, so many at a time, and only as long as somebody waits.

Models are loaded in the background, so that a server tells from its first moment what it waits for. A load that failed
is told for as long as the server lives; nothing is tried again behind one's back.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from copy import copy
from typing import Any, Literal, TypeVar

from fastapi import HTTPException, Request

from mllmrec.errors import MllmrecError
from mllmrec.progress import remark
from mllmrec.serving.answers import Question, Scores
from mllmrec.serving.dataset_view import DatasetView
from mllmrec.serving.metrics import Metrics
from mllmrec.serving.recommender import Recommender
from mllmrec.serving.scoring import ABANDONED, SharedScoring
from mllmrec.settings.serving import ServeSettings

Answer = TypeVar("Answer")
Score = Callable[[Sequence[Question]], list[Scores]]
State = Literal["loading", "ready", "failed"]
RETRY_SECONDS = 1
LEFT = 499
"""Status of a request whose client left: nobody reads it, but it is counted."""


def open_models(settings: ServeSettings) -> list[Recommender]:
    """The models of the settings, with all that they would otherwise read when they are first asked."""
    found = []
    for tag in settings.tag:
        recommender = Recommender.open(settings.recommender(tag))
        _ = recommender.retriever, recommender.blend
        found.append(recommender)
    return found


class Service:
    """Models that load, are ready or failed; `load` gives them, the default one first."""

    def __init__(self, settings: ServeSettings, load: Callable[[], Sequence[Recommender]], metrics: Metrics) -> None:
        self.settings, self.metrics = settings, metrics
        self.state: State = "loading"
        self.reason = f"Loading {', '.join(settings.tag)} of {settings.dataset}."
        self.models: Mapping[str, Recommender] = {}
        self.audit: dict[str, Any] | None = None
        self._view: DatasetView | None = None
        self._load = load
        self._pool = ThreadPoolExecutor(settings.max_waiting, thread_name_prefix="question")
        self._readers: list[ThreadPoolExecutor] = []
        self._in_flight, self._lock = 0, threading.Lock()

    def start(self) -> threading.Thread:
        """Begin to load; the thread doesn't keep a process alive that is to end."""
        thread = threading.Thread(target=self._open, name="loading", daemon=True)
        thread.start()
        return thread

    def close(self) -> None:
        """Wait for what was begun, and begin nothing more."""
        for pool in (self._pool, *self._readers):
            pool.shutdown(wait=True, cancel_futures=True)

    def recommender(self, model: str | None = None) -> Recommender:
        """The model of a name, the first one without; 404 for a name that isn't served, 503 before models are ready."""
        self._require_ready()
        if model is None:
            return next(iter(self.models.values()))
        if model not in self.models:
            raise HTTPException(404, f"There is no model {model!r} here. Expected one of {', '.join(self.models)}.")
        return self.models[model]

    @property
    def view(self) -> DatasetView:
        """The dataset as it is shown; 503 before models are ready."""
        self._require_ready()
        assert self._view is not None, "a service that is ready has a view"
        return self._view

    async def run(self, request: Request, work: Callable[[], Answer]) -> Answer:
        """What `work` returns, done by a thread.

        429 where too many are at work or wait already, 504 after the deadline. Whoever isn't waited for any more, for
        that reason or because the client left, gets out of the line for the model.
        """
        future, abandoned = self._submit(work)
        answer, left = asyncio.wrap_future(future), asyncio.ensure_future(_left(request))
        awaited: set[asyncio.Future[Any]] = {answer, left}
        try:
            await asyncio.wait(awaited, timeout=self.settings.deadline, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return answer.result()
            if left.done():
                raise HTTPException(LEFT, "The client left before the answer was there.")
            raise HTTPException(
                504, f"No answer within {self.settings.deadline:g} s. Ask for less, or again when fewer ask."
            )
        finally:
            abandoned.set()
            left.cancel()
            answer.cancel()

    def _submit(self, work: Callable[[], Answer]) -> tuple[Future[Answer], threading.Event]:
        with self._lock:
            if self._in_flight >= self.settings.max_waiting:
                raise HTTPException(
                    429,
                    f"{self._in_flight} questions are at work or wait already. Ask again in a moment.",
                    {"Retry-After": str(RETRY_SECONDS)},
                )
            self._in_flight += 1
        self.metrics.waiting.inc()
        abandoned, context = threading.Event(), copy_context()
        context.run(ABANDONED.set, abandoned)
        try:
            future = self._pool.submit(context.run, work)
        except RuntimeError:
            self._release(None)
            raise HTTPException(503, "The server is ending.") from None
        future.add_done_callback(self._release)
        return future, abandoned

    def _release(self, _: object) -> None:
        with self._lock:
            self._in_flight -= 1
        self.metrics.waiting.dec()

    def _require_ready(self) -> None:
        if self.state != "ready":
            raise HTTPException(503, self.reason, {"Retry-After": str(RETRY_SECONDS)})

    def _open(self) -> None:
        try:
            models = {model.name: model for model in self._load()}
            view = DatasetView.of(next(iter(models.values())), self.settings.dataset)
        except Exception as error:
            reason = (
                str(error) if isinstance(error, MllmrecError) else " ".join(f"{type(error).__name__}: {error}".split())
            )
            self.reason, self.state = f"The models couldn't be loaded. {reason}", "failed"
            remark(f"{self.reason} Stop the server with Ctrl-C, mend this, and start it again.")
            return
        for name, given in models.items():
            model = models[name] = copy(given)
            most = model.score.most if self.settings.batching else 1
            model.score = SharedScoring(self._read_by_one(model.score.score, name), most)
        self.models, self._view = models, view
        self.reason, self.state = "Ready.", "ready"
        remark(f"{', '.join(models)} of {self.settings.dataset}: ready.")
        with suppress(MllmrecError):
            self.audit = view.audited(next(iter(models.values())).window)

    def _read_by_one(self, score: Score, model: str) -> Score:
        """Scoring by one thread that does nothing else, counted; memory that each thread keeps for itself adds up."""
        reader = ThreadPoolExecutor(1, thread_name_prefix=f"model-{model}")
        self._readers.append(reader)

        def read(questions: Sequence[Question]) -> list[Scores]:
            found = reader.submit(score, questions).result()
            self.metrics.passes.labels(model).observe(len(questions))
            self.metrics.tokens.labels(model).inc(sum(scores.tokens for scores in found))
            return found

        return read


async def _left(request: Request) -> None:
    """Return when the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
