"""Settings of `mllmrec probe`."""

from __future__ import annotations

import difflib
from typing import ClassVar

from pydantic import field_validator

from mllmrec.settings.base import Integers, Names, knob
from mllmrec.settings.ranking import ModelRunSettings

PROBES = (
    "position",
    "popularity",
    "length",
    "shuffled",
    "last-item",
    "no-history",
    "caption-swap",
    "title-mask",
    "hint",
)


class ProbeSettings(ModelRunSettings):
    """Ask the same questions in other words, and tell what the model goes by."""

    verb: ClassVar[str] = "probe"

    probes: Names = knob(PROBES, f"Probes to make, comma-separated: {', '.join(PROBES)}.", operational=True)
    rotations: int = knob(
        10,
        "Rotations of each candidate list, evenly spaced, the list as it stands included; never more than candidates.",
        operational=True,
        ge=2,
    )
    top_k: Integers = knob(
        (3, 5, 10), "Cut-offs K of HR@K and NDCG@K, comma-separated; HR@1 and MRR are always told.", operational=True
    )
    limit: int | None = knob(
        None, "Probe a fixed slice of N users, drawn by hash; a larger N later extends it.", operational=True, ge=1
    )

    @field_validator("probes")
    @classmethod
    def _known(cls, probes: tuple[str, ...]) -> tuple[str, ...]:
        if not probes:
            raise ValueError(f"probes is empty: expected some of {', '.join(PROBES)}")
        for name in probes:
            if name not in PROBES:
                close = difflib.get_close_matches(name, PROBES, n=1)
                hint = f"did you mean {close[0]}?" if close else f"expected some of {', '.join(PROBES)}"
                raise ValueError(f"probes: there is no probe {name!r}; {hint}")
        return tuple(name for name in PROBES if name in probes)
