"""Settings of `mllmrec candidates`."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from mllmrec.settings.base import DatasetSettings, knob


class CandidatesSettings(DatasetSettings):
    """Draw and freeze the candidate lists of a split."""

    verb: ClassVar[str] = "candidates"

    split: Literal["train", "valid", "test"] = knob("test", "Split whose examples get candidates.")
    num_neg: int = knob(9, "Negatives beside each target.", ge=1)
    negatives: Literal["uniform", "popularity"] = knob("uniform", "How negatives are drawn.")
    min_inter: int = knob(10, "Items of a window: the history and its target.", ge=2)
    seed: int = knob(42, "Seed of the draw.")
    legacy: bool = knob(False, "Draw exactly as the reference implementation does, for comparison.")

    @model_validator(mode="after")
    def _reference_draws_uniformly(self) -> Self:
        if self.legacy and self.negatives != "uniform":
            raise ValueError(f"negatives = {self.negatives!r}: the reference's draw is uniform; leave out --legacy")
        return self
