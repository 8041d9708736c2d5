"""Settings of `mllmrec caption`."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from mllmrec.settings.base import knob
from mllmrec.settings.long import TeacherSettings

PIXELS_KNOWS = ("dataset", "backend", "max_pixels")


class CaptionSettings(TeacherSettings):
    """Put every image of the catalogue into one sentence."""

    verb: ClassVar[str] = "caption"

    backend: Literal["pixels", "huggingface", "endpoint"] = knob(
        "pixels", "Who writes: pixels (image statistics, no model), huggingface (a local model), endpoint (a server)."
    )
    model: str = knob(
        "Qwen3-VL-8B-Instruct", "Vision model: folder, hub id, or the name an endpoint serves; pixels takes none."
    )
    max_new_tokens: int = knob(128, "Longest caption, in tokens.", ge=8)
    max_pixels: int = knob(
        1_048_576, "Pixels of an image; larger ones are scaled down, for pixels to 24,576 in any case.", ge=4096
    )

    def result_settings(self) -> dict[str, Any]:
        """Without the knobs of models, when none is asked."""
        chosen = super().result_settings()
        return chosen if self.backend != "pixels" else {name: chosen[name] for name in PIXELS_KNOWS}
