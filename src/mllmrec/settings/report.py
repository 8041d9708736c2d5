"""Settings of `mllmrec report`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import field_validator

from mllmrec.settings.base import DatasetSettings, knob


class ReportSettings(DatasetSettings):
    """Write one page that shows all that is known of a dataset's models.

    Nothing is trained or ranked for it, so it takes seconds, and it is written anew each time.
    """

    verb: ClassVar[str] = "report"

    metric: str = knob("NDCG@3", "Metric of the figures and of the verdict, where a RUN tells it: NDCG@K, HR@K or MRR.")
    cases: int = knob(20, "Worked cases to show; users are drawn by hash.", ge=0)
    run: str = knob("", "Name of the RUN whose cases are shown; none: the last model of the ladder.")
    audit: bool = knob(True, "Audit the dataset's files for leaks, which takes a few seconds.")
    raw_ids: bool = knob(False, "Name users and untitled items by the ids that the raw files had.", operational=True)
    seed: int = knob(42, "Seed of the resampling and of the draws.", ge=0)

    @field_validator("metric")
    @classmethod
    def _known(cls, metric: str) -> str:
        kind, _, cut = metric.partition("@")
        if metric != "MRR" and not (kind in ("HR", "NDCG") and cut.isdecimal() and int(cut) > 0):
            raise ValueError(f"metric = {metric!r}: expected NDCG@K, HR@K or MRR, such as NDCG@3")
        return metric
