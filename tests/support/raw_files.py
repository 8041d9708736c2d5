"""Small made-up raw files, and `prepare` run on them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mllmrec import Workspace
from mllmrec.data.importers.source import Imported
from mllmrec.data.prepare import IMPORTERS, run
from mllmrec.records import Summary
from mllmrec.settings.data import PrepareSettings


def lay(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    """Write files by relative path and return the folder; text is UTF-8 as it stands."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def settings(raw: Path, **knobs: Any) -> PrepareSettings:
    return PrepareSettings(**{"source": "pairs", "dataset": "shop", "min_inter": 2, "raw": str(raw), **knobs})


def read(raw: Path, **knobs: Any) -> Imported:
    """What an importer finds and reads in `raw`."""
    chosen = settings(raw, **knobs)
    importer = IMPORTERS[chosen.source]
    return importer.read(importer.find(raw, chosen), chosen)


def prepare(root: Path, raw: Path, **knobs: Any) -> Summary:
    return run(settings(raw, **knobs), Workspace(root))


def pairs(*rows: tuple[str, str, int]) -> str:
    return "user,item,timestamp\n" + "".join(f"{user},{item},{time}\n" for user, item, time in rows)
