"""What can be said of a trace from its text alone: form, leakage and modality consistency."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mllmrec.backends.embedding import make_embedders
from mllmrec.data.sequences import Interactions
from mllmrec.data.traces import Joined
from mllmrec.reasoning.form import form_of
from mllmrec.reasoning.leakage import LeakageJudge
from mllmrec.reasoning.modality import ModalityJudge
from mllmrec.settings.assess import AssessSettings


class Examination:
    """Examines traces of one dataset; `stepped` where they are refined ones, which have steps."""

    def __init__(
        self, interactions: Interactions, captions: Mapping[str, str], settings: AssessSettings, *, stepped: bool
    ) -> None:
        self._stepped = stepped
        one, other = make_embedders(settings.embedder, settings.device)
        self._modality = ModalityJudge(interactions, captions, one, settings.seed)
        self._leakage = LeakageJudge(interactions.catalogue, captions, other, settings.seed)

    def rows(self, joined: Sequence[Joined]) -> list[dict[str, Any]]:
        """The records with their scores, and with the reason for which each is rejected, or None."""
        traces = [trace for trace, _ in joined]
        parts = zip(joined, self._modality.judge(traces), self._leakage.judge(traces), strict=True)
        rows = []
        for (trace, record), modality, leakage in parts:
            form = form_of(trace.reasoning, stepped=self._stepped)
            scores = {
                "modality": modality.score,
                "modality_margin": modality.margin,
                "lift": None,
                "lift_error": None,
                "steps": form.steps,
                "length": form.length,
                "words": form.words,
                "title_overlap": leakage.title_overlap,
                "caption_overlap": leakage.caption_overlap,
                "similarity_gap": leakage.similarity_gap,
            }
            reason = leakage.reason or form.reason
            rows.append({**storable(record), "example_id": trace.example_id, "scores": scores, "reason": reason})
        return rows


def storable(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as UTF-8 can hold it: half of a surrogate pair, which JSON may spell, becomes a question mark."""
    found: dict[str, Any] = json.loads(json.dumps(record, ensure_ascii=False).encode("utf-8", "replace"))
    return found
