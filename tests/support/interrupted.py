"""Runs a stage of traces in a process of its own, slowly, noting each key it asks for: to be killed.

python interrupted.py pseudo-cot|refine ROOT ASKED
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from shelves import DATASET, WINDOW, ScriptedTeacher, draft_of, steps_of

from mllmrec.models.base import Request
from mllmrec.reasoning.writing import pseudo_cot, refine
from mllmrec.settings.texts import PseudoCotSettings, RefineSettings
from mllmrec.storage.workspace import Workspace

SECONDS_EACH = 0.004


def main(verb: str, root: str, asked: str) -> None:
    workspace, write = Workspace(root), draft_of if verb == "pseudo-cot" else steps_of

    def slowly(request: Request) -> str:
        with Path(asked).open("a", encoding="utf-8") as file:
            file.write(f"{request.key}\n")
        time.sleep(SECONDS_EACH)
        # One in nine breaks the form at first.
        broken = int(request.key, 16) % 9 == 0 and "could not be used" not in request.text
        return "Too short." if broken else write(request)

    teacher = ScriptedTeacher(slowly)
    if verb == "pseudo-cot":
        drafting = PseudoCotSettings(
            dataset=DATASET, root=root, min_inter=WINDOW, windows="all", backend="endpoint", model="m"
        )
        pseudo_cot.run(drafting, workspace, teacher=teacher)
    else:
        refine.run(RefineSettings(dataset=DATASET, root=root, backend="endpoint"), workspace, teacher=teacher)


if __name__ == "__main__":
    main(*sys.argv[1:])
