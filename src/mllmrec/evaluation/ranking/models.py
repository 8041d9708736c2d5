"""Which model ranks: a backbone, a merged or full checkpoint, or adapters on one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mllmrec.data.item_files import read_captions
from mllmrec.data.model_folders import is_adapter
from mllmrec.data.prompts import PromptFormat, inherited
from mllmrec.data.sequences import Catalogue, require_dataset
from mllmrec.errors import ArtifactError
from mllmrec.models.chat_templates import read_template
from mllmrec.models.huggingface import resolve
from mllmrec.models.ranker import Ranker, load_ranker
from mllmrec.settings.evaluation import ModelSettings
from mllmrec.storage.manifests import Manifest, hash_model
from mllmrec.storage.workspace import Workspace, require

ADVICE = {
    "evaluate": "Rank with --method generate, or choose another model.",
    "probe": "Probes compare such scores and nothing else: choose another model.",
    "recommend": "Recommendations are ranked by such scores: choose another model.",
    "serve": "Recommendations are ranked by such scores: choose another model.",
}


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """What makes up the model (folders or a hub id), the name of its RUN, and the prompt format it was trained with."""

    name: str
    base: str
    adapter: Path | None
    trained: PromptFormat | None

    def hashes(self) -> dict[str, str]:
        model = {"model": hash_model(Path(self.base)) if Path(self.base).is_dir() else self.base}
        return model | ({"adapter": hash_model(self.adapter)} if self.adapter else {})


def choose_model(settings: ModelSettings, workspace: Workspace) -> ModelChoice:
    """The model that --backbone, --sft-tag and --tag name together.

    Adapters find the model they were trained on through their manifest, unless one is named. Raises ArtifactError where
    the dataset, a model or a checkpoint is missing.
    """
    require_dataset(workspace, settings.dataset)
    given = settings.model_fields_set
    base = settings.backbone
    if settings.sft_tag:
        base = str(_full_model(workspace, settings))
    name = settings.tag or settings.sft_tag or Path(settings.backbone).name
    if not settings.tag:
        source = resolve(workspace, base)
        return ModelChoice(name=name, base=source, adapter=None, trained=_format(Path(source)))
    folder = _checkpoint(workspace, settings.dataset, settings.tag)
    if not is_adapter(folder):
        return ModelChoice(name=name, base=resolve(workspace, str(folder)), adapter=None, trained=_format(folder))
    manifest = Manifest.read(folder)
    if manifest is not None and not settings.sft_tag and "backbone" not in given:
        base = str(manifest.details.get("model", base))
    return ModelChoice(name=name, base=resolve(workspace, base), adapter=folder, trained=_format(folder))


def open_ranker(
    settings: ModelSettings, workspace: Workspace, choice: ModelChoice, catalogue: Catalogue, window: int
) -> Ranker:
    """Load the chosen model, ready to rank by prompts in the format it was trained with."""
    captions, max_prompt_tokens = prompt_content(settings, workspace, choice, window)
    return load_ranker(
        workspace,
        choice.base,
        choice.adapter,
        catalogue=catalogue,
        captions=captions,
        max_prompt_tokens=max_prompt_tokens,
        batch_tokens=settings.batch_tokens,
        device=settings.device,
        dtype=settings.dtype,
        force=settings.force,
        chat_template=settings.chat_template,
        layout=settings.layout,
        advice=ADVICE.get(settings.verb, Ranker.advice),
    )


def prompt_content(
    settings: ModelSettings, workspace: Workspace, choice: ModelChoice, window: int
) -> tuple[Mapping[str, str], int]:
    """The captions and the token budget of the prompts; a SettingsError where they contradict the checkpoint.

    A budget that isn't asked for is the checkpoint's own: a larger one would show it longer captions than it knows.
    """
    asked: dict[str, object] = {"window": window}
    if settings.captions != "auto":
        asked["captions"] = settings.captions == "on"
    if settings.chat_template:
        asked["chat_template"] = read_template(settings.chat_template)
    trained = inherited(choice.trained, asked, choice.name)
    if trained is None:
        return read_captions(workspace, settings.dataset, settings.captions), settings.max_prompt_tokens
    captions = read_captions(workspace, settings.dataset, "on" if trained.captions else "off")
    asked_for = "max_prompt_tokens" in settings.model_fields_set
    return captions, settings.max_prompt_tokens if asked_for else trained.max_prompt_tokens


def _full_model(workspace: Workspace, settings: ModelSettings) -> Path:
    folder = _checkpoint(workspace, settings.dataset, settings.sft_tag)
    if is_adapter(folder):
        raise ArtifactError(
            f"{folder} holds adapters, and --sft-tag names a full model. Name it with --tag, or merge it first: "
            f"mllmrec merge --dataset {settings.dataset} --tag {settings.sft_tag}."
        )
    return folder


def _checkpoint(workspace: Workspace, dataset: str, tag: str) -> Path:
    folder = workspace.checkpoint(dataset, tag)
    there = sorted(path.parent.name for path in folder.parent.glob("*/manifest.json"))
    remedy = "Name one of them, or train it first" if there else "Train it first, for example with `mllmrec sft`"
    require(
        folder, f"The checkpoint {tag}", f"Finished checkpoints of {dataset}: {', '.join(there) or 'none'}. {remedy}."
    )
    if (folder / "unfinished.json").exists() and Manifest.read(folder) is None:
        raise ArtifactError(
            f"{folder} isn't finished: its training was interrupted. Give its command again, which goes on."
        )
    return folder


def _format(folder: Path) -> PromptFormat | None:
    return PromptFormat.of(Manifest.read(folder)) if folder.is_dir() else None
