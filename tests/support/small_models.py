"""Real architectures at toy size, and the made-up world they are trained and measured on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mllmrec.settings.training import GrpoSettings, MergeSettings, SftSettings
from mllmrec.storage.workspace import Workspace, write_text

DATASET, WINDOW = "toy", 5
NUM_USERS, NUM_ITEMS = 160, 48
WIDE = 0.25
"""Spread of random weights: wide enough that a wrong mask or position changes scores by far more than 1e-4."""
SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
"""What a model of two layers and 32 dimensions is called in the configurations of most families."""


def make_workspace(root: Path) -> Workspace:
    """The made-up world at toy size, prepared for windows of five items, with frozen candidates of both targets."""
    from toy_world import ToyWorld, write_toy_world

    from mllmrec.data.candidates.stage import run as candidates
    from mllmrec.data.prepare import run as prepare
    from mllmrec.settings.data import CandidatesSettings, PrepareSettings

    raw = root / "raw"
    write_toy_world(ToyWorld(num_items=NUM_ITEMS, num_users=NUM_USERS, length=(7, 11), popular=0.8), raw)
    workspace = Workspace(root)
    prepare(
        PrepareSettings(
            dataset=DATASET,
            root=str(root),
            source="pairs",
            raw=str(raw / "pairs.csv"),
            titles=str(raw / "titles.csv"),
            min_inter=WINDOW,
        ),
        workspace,
    )
    for legacy in (False, True):
        candidates(
            CandidatesSettings(dataset=DATASET, root=str(root), num_neg=9, min_inter=WINDOW, legacy=legacy), workspace
        )
    return workspace


def make_backbone(workspace: Workspace, **knobs: Any) -> Path:
    """A Qwen3 of two layers and 32 dimensions, by `mllmrec backbone tiny`."""
    from mllmrec.settings.training import BackboneSettings
    from mllmrec.training.backbones import run

    sizes = {"out": "tiny", "layers": 2, "width": 32, "heads": 2, "vocab": 600, "batch": 8}
    settings = BackboneSettings(dataset=DATASET, root=str(workspace.root), **(sizes | knobs))
    run(settings, workspace)
    return workspace.root / settings.out


def sft_settings(workspace: Workspace, **knobs: Any) -> SftSettings:
    """Ten quick steps of LoRA on the random backbone, unless the knobs say otherwise."""
    quick = {
        "backbone": "tiny",
        "min_inter": WINDOW,
        "num_neg": 4,
        "epochs": 1,
        "limit": 80,
        "batch": 8,
        "accum": 1,
        "lr": 5e-3,
        "eval_users": 16,
        "eval_steps": 1000,
        "logging_steps": 1,
    }
    return SftSettings(dataset=DATASET, root=str(workspace.root), **(quick | knobs))


def grpo_settings(workspace: Workspace, **knobs: Any) -> GrpoSettings:
    """Four quick steps from the checkpoint `full`, unless the knobs say otherwise."""
    quick = {
        "sft_tag": "full",
        "num_neg": 4,
        "limit": 16,
        "batch": 16,
        "accum": 1,
        "num_generations": 4,
        "max_completion_length": 16,
        "lr": 1e-2,
        "eval_users": 16,
        "eval_steps": 1000,
        "logging_steps": 1,
    }
    return GrpoSettings(dataset=DATASET, root=str(workspace.root), **(quick | knobs))


ON_FULL = {"backbone": f"checkpoints/{DATASET}/full", "lr": 1e-2, "windows": "all", "limit": 160}
"""Knobs of the adapters `sft`: with fewer windows they would rank no better than what they are trained on."""


def trainer_parts(
    workspace: Workspace, settings: Any, base: str | Path, lora: Callable[[str], Any], *, steps: int = 1
) -> Any:
    """The TrainerParts of a run from a model folder, with titles alone; `lora` is asked with the folder's name."""
    from mllmrec.data.sequences import Interactions
    from mllmrec.models.chat import Encoder
    from mllmrec.models.huggingface import load
    from mllmrec.training.datasets import training_examples
    from mllmrec.training.setup import TrainerParts

    interactions = Interactions.load(workspace, DATASET)
    loaded = load(workspace, base, device="cpu")
    return TrainerParts(
        settings=settings,
        folder=workspace.root / "out",
        loaded=loaded,
        encoder=Encoder.make(loaded.chat, interactions.catalogue, {}, 2048),
        examples=training_examples(settings, workspace, interactions, WINDOW),
        steps=steps,
        lora=lora(loaded.names[0]),
    )


def grpo_lora(settings: GrpoSettings, source: str) -> Any:
    """The adapters that GRPO puts on a model."""
    from mllmrec.training.grpo.stage import LORA_ALPHA
    from mllmrec.training.lora_targets import lora_for

    return lora_for(source, rank=settings.rank, alpha=LORA_ALPHA, dropout=0.0)


def train_all(workspace: Workspace) -> None:
    """A model that answers in the right form, adapters on it, both merged, and GRPO on what was merged."""
    from mllmrec.training import merge, sft
    from mllmrec.training.grpo import stage as grpo

    fluent = {"tag": "full", "peft": "none", "epochs": 2, "windows": "all", "limit": None, "lr": 8e-3}
    sft.run(sft_settings(workspace, **fluent), workspace)
    sft.run(sft_settings(workspace, **ON_FULL), workspace)
    merge.run(MergeSettings(dataset=DATASET, root=str(workspace.root)), workspace)
    grpo.run(grpo_settings(workspace, sft_tag="sft-merged"), workspace)


def copy_of(workspace: Workspace, root: Path) -> Workspace:
    """A workspace of one's own with the same content."""
    shutil.copytree(workspace.root, root)
    return Workspace(root)


def shorten_validation(workspace: Workspace) -> None:
    """Leave no validation line long enough for a window: training then keeps its last weights."""
    path = workspace.dataset(DATASET).split("valid")
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    write_text(path, "".join(f"{user}\t{' '.join(items.split()[-2:])}\n" for user, items in lines))


def random_model(family: str = "Qwen3", *, seed: int = 0, **config: Any) -> Any:
    """A causal LM of two layers with wide random weights, in evaluation mode; `family` is Qwen3, Llama, ..."""
    import torch
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = getattr(transformers, f"{family}Config")(**(SIZES | {"initializer_range": WIDE} | config))
        return getattr(transformers, f"{family}ForCausalLM")(made).eval()


def naive_scores(model: Any, prompt: Sequence[int], answers: Sequence[Sequence[int]]) -> list[float]:
    """log p(answer | prompt) the plain way: one forward pass for each answer, no mask, no shared prefix."""
    import torch

    scores = []
    with torch.no_grad():
        for answer in answers:
            ids = torch.tensor([[*prompt, *answer]])
            logp_TV = model(input_ids=ids, use_cache=False).logits[0].float().log_softmax(dim=-1)
            rows = range(len(prompt) - 1, len(prompt) + len(answer) - 1)
            scores.append(sum(logp_TV[row, token].item() for row, token in zip(rows, answer, strict=True)))
    return scores


def weights_of(folder: Path) -> dict[str, Any]:
    """All tensors of a model or adapter folder by name."""
    from safetensors.torch import load_file

    return {name: value for path in sorted(folder.glob("*.safetensors")) for name, value in load_file(path).items()}
