"""Settings of `mllmrec audit`."""

from __future__ import annotations

from typing import ClassVar

from mllmrec.settings.base import DatasetSettings, knob


class AuditSettings(DatasetSettings):
    """Look for leaks in a dataset's files; exit status 1 when there is one."""

    verb: ClassVar[str] = "audit"

    min_inter: int = knob(
        10, "Items of a window (history and target), where a file's name or rows don't tell it; at least 2.", ge=2
    )
