"""`mllmrec recommend`, as a table or as JSON, and `mllmrec serve`."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from mllmrec.errors import SettingsError, install_command
from mllmrec.records import Summary, Table
from mllmrec.serving.answers import Explanation, RankedItem, Ranking, history_cut
from mllmrec.serving.dataset_view import finite
from mllmrec.serving.recommender import Recommender
from mllmrec.settings.serving import RecommendSettings, ServeSettings

SERVING = ("fastapi", "uvicorn", "prometheus_client")
"""Libraries of the extra `serve`."""


def run_recommend(settings: RecommendSettings) -> Summary | None:
    """Recommend after the history of a user, or one that is spelt out; None where JSON was printed in its place."""
    if bool(settings.user) == bool(settings.history):
        raise SettingsError("Expected either --user or --history: whom, or what, should recommendations follow?")
    recommender = Recommender.open(settings)
    named = recommender.history_of(settings.user) if settings.user else settings.history
    history = recommender.names.resolve(named)
    if settings.candidates:
        found = recommender.rank(history, settings.candidates, settings.top_k)
    else:
        found = recommender.recommend(
            history, settings.top_k, settings.retrieve, recommender.met_by(settings.user) if settings.user else ()
        )
    among = settings.candidates or tuple(recommender.retrieved(history, settings.retrieve)) if settings.explain else ()
    by_blend = recommender.blend is not None and not settings.candidates
    why = [recommender.explain(history, item.item_id, among, by_blend) for item in found[: settings.explain]]
    if settings.json_:
        print(json.dumps(finite(_plain(recommender, history, found, why)), ensure_ascii=False, indent=2))
        return None
    read = history[len(history) - found.history_read :]
    titles = "; ".join(recommender.names.catalogue.title(item) for item in read)
    cut = history_cut(found.history_given, found.history_read) if found else ""
    reasons = [_reasons(own, own.blend or f"{recommender.name} alone") for own in why]
    return Summary(
        headline=f"{recommender.name} would go on with {found[0].title}." if found else "Nothing is left to recommend.",
        tables=(
            _table(found, f"After {titles}", f"{_by_whom(recommender, settings)} {cut}".strip()),
            *reasons,
        ),
    )


def run_serve(settings: ServeSettings) -> None:
    """Serve until a signal comes. Raises SettingsError where the libraries aren't installed."""
    require_libraries()
    from mllmrec.serving.server import serve

    serve(settings)


def require_libraries() -> None:
    """Raise SettingsError where the libraries of the extra `serve` aren't installed."""
    if missing := [name for name in SERVING if importlib.util.find_spec(name) is None]:
        raise SettingsError(f"`mllmrec serve` needs {', '.join(missing)}. Install it with: {install_command('serve')}")


def _by_whom(recommender: Recommender, settings: RecommendSettings) -> str:
    if settings.candidates:
        return f"Shares among the {len(settings.candidates)} candidates, by {recommender.name}."
    retriever = recommender.retriever
    blend = f", blended as in {recommender.blend.name}" if recommender.blend else ""
    return (
        f"Shares among the {settings.retrieve} items that {retriever.name} ({retriever.origin}) finds, by "
        f"{recommender.name}{blend}."
    )


def _table(found: Sequence[RankedItem], title: str, note: str) -> Table:
    rows = tuple((item.title, item.raw_id, f"{item.probability:.1%}", f"{item.log_probability:.2f}") for item in found)
    return Table(title=title, columns=("title", "id", "share", "log-probability"), rows=rows, note=note)


def _reasons(why: Explanation, by: str) -> Table:
    rows = tuple((reason.title, f"{reason.effect:+.2f}") for reason in why.reasons)
    return Table(
        title=f"Why {why.title}, {why.probability:.1%} of {len(why.candidates)} by {by}",
        columns=("item of the history", "effect on its log-odds"),
        rows=rows,
        note="; ".join(f"thought: {thought}" for thought in why.thoughts),
    )


def _plain(
    recommender: Recommender, history: Sequence[str], found: Ranking, why: Sequence[Explanation]
) -> dict[str, Any]:
    return {
        "model": recommender.name,
        "history": list(history),
        "history_read": found.history_read,
        "items": [asdict(item) for item in found],
        "explanations": [asdict(own) for own in why],
    }
