"""The prompt format a checkpoint was trained with, which every later verb inherits.

A model that was trained on windows of ten titles with captions must not be asked about windows of five without: the
format lies in the checkpoint's manifest, and a conflict is refused. The date that a chat template shows is part of the
template's version, so that a checkpoint keeps its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mllmrec.data.prompts import TEMPLATE_VERSION, TODAY
from mllmrec.errors import SettingsError
from mllmrec.manifests import Manifest

FORMER_TEMPLATE = "2026-11.2"
"""The version before, with the same wording. It let the chat template show the day of training: its checkpoints keep
that day, as `2026-11.2 of 2026-10-31`."""


@dataclass(frozen=True, kw_only=True)
class PromptFormat:
    """What decides how a prompt looks; `hint_share` is told but bound to training alone."""

    window: int
    captions: bool
    max_prompt_tokens: int
    template: str = TEMPLATE_VERSION
    hint_share: float = 0.0

    def to_details(self) -> dict[str, Any]:
        return {"prompt_format": asdict(self)}

    @classmethod
    def of(cls, manifest: Manifest | None) -> PromptFormat | None:
        """The format in a checkpoint's manifest, or None when it holds none (a plain backbone)."""
        details = manifest.details.get("prompt_format") if manifest is not None else None
        if not details:
            return None
        if set(details) - set(cls.__dataclass_fields__):
            raise SettingsError(
                f"The checkpoint's prompt format holds {', '.join(sorted(details))}, and this version knows "
                f"{', '.join(cls.__dataclass_fields__)}. Use the version that trained it, or train anew."
            )
        if manifest is not None and details.get("template") == FORMER_TEMPLATE:
            details = details | {"template": f"{FORMER_TEMPLATE} of {manifest.finished_at[:10] or TODAY}"}
        return cls(**details)

    @property
    def is_former(self) -> bool:
        """Whether the model knows prompts as the version before wrote them."""
        return self.template.split(" ")[0] == FORMER_TEMPLATE

    @property
    def date(self) -> str:
        """The date (ISO 8601) that the chat template showed the model in training, where it shows one."""
        return self.template.partition(" of ")[2] or TODAY


def inherited(trained: PromptFormat | None, asked: Mapping[str, Any], name: str) -> PromptFormat | None:
    """`trained`, after checking that nothing `asked` for contradicts it.

    `asked` maps field names to values the user gave explicitly. Raises SettingsError naming the conflict, also when
    the checkpoint was trained with another version of the prompt template.
    """
    if trained is None:
        return None
    conflicts = [
        f"{field} is {value!r}, and {name} was trained with {getattr(trained, field)!r}"
        for field, value in asked.items()
        if value != getattr(trained, field)
    ]
    if trained.template != TEMPLATE_VERSION and not trained.is_former:
        conflicts.append(f"this version writes template {TEMPLATE_VERSION}, and {name} knows {trained.template}")
    if conflicts:
        raise SettingsError(f"{'; '.join(conflicts)}. Leave the setting out to inherit it, or train anew.")
    return trained
