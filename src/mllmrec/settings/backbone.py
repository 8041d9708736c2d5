"""Settings of `mllmrec backbone tiny`."""

from __future__ import annotations

from typing import ClassVar

from mllmrec.settings.base import DatasetSettings, Fold, knob


class BackboneSettings(DatasetSettings):
    """Make a small Qwen3 from scratch for one dataset, so that everything runs where no weights are."""

    verb: ClassVar[str] = "backbone"

    out: str = knob("tiny", "Folder under the root where the model goes.")
    layers: int = knob(4, "Transformer layers.", ge=1)
    width: int = knob(64, "Hidden width.", ge=16)
    heads: int = knob(4, "Attention heads of 32 dimensions each.", ge=1)
    vocab: int = knob(8192, "Tokens of the vocabulary, trained on the dataset's titles.", ge=300)
    copy_steps: int = knob(0, "Pre-training steps on random segments that repeat themselves (it learns to copy).", ge=0)
    sequence_steps: int = knob(0, "Pre-training steps on the train split's sequences as text.", ge=0)
    title_share: float = knob(0.3, "Share of those sequences' lines that hold the title beside the id.", ge=0, le=1)
    fold: Fold = knob("", "Read the sequences of part i of n of the users only, written i/n: for a scorer of assess.")
    batch: int = knob(64, "Sequences in a pre-training step.", ge=1)
    lr: float = knob(1e-3, "Learning rate of pre-training.", gt=0)
    seed: int = knob(42, "Seed of the weights and of pre-training.")
