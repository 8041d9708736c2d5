"""Made-up reasoning records, as the reference implementation writes them and as we do."""

from __future__ import annotations

from typing import Any

from mllmrec.records import example_id


def reference(line_idx: Any, user: object, span: str, reasoning: str | None = "Step 1.", **more: Any) -> dict[str, Any]:
    """A record of the reference implementation; the last item of `span` is the target."""
    *history, target = span.split()
    return {
        "line_idx": line_idx,
        "user_id": user,
        "history_items": [{"item_id": item, "title": "t", "image_path": "p"} for item in history],
        "target_item": {"item_id": target, "title": "t", "image_path": "p"},
        "reasoning": reasoning,
        **more,
    }


def own(user: str, span: str, **more: Any) -> dict[str, Any]:
    """A record that knows its example."""
    return reference(99, user, span, example_id=key(user, span)) | more


def key(user: str, span: str) -> str:
    *history, target = span.split()
    return example_id(user, target, history)
