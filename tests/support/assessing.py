"""Runs `assess` in a process of its own: to be killed, or launched several times over.

python assessing.py ROOT DATASET [name=value ...]
"""

from __future__ import annotations

import sys
import time
from typing import Any

from mllmrec.reasoning.assessment import stage as assess
from mllmrec.settings.texts import AssessSettings
from mllmrec.storage.workspace import Workspace

SECONDS_EACH = 0.005


def main(root: str, dataset: str, *knobs: str) -> None:
    finish = assess._finish

    def slowly(*arguments: Any) -> None:
        finish(*arguments)
        time.sleep(SECONDS_EACH)

    assess._finish = slowly
    chosen = dict(knob.split("=") for knob in knobs)
    assess.run(AssessSettings.model_validate({"dataset": dataset, "root": root, **chosen}), Workspace(root))


if __name__ == "__main__":
    main(*sys.argv[1:])
