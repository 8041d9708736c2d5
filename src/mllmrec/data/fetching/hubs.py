"""Model folders from the Hugging Face hub or ModelScope: configuration, tokenizer and safetensors, nothing else.

Pickled weights (.bin, .pt) can run code when they are read and are never downloaded. The clients mend a cut
connection themselves; after a failure the same command fetches the files that had not arrived whole. `HF_ENDPOINT`
names a mirror of the hub, and a key, which only closed models need, is taken from `HF_TOKEN` or `MODELSCOPE_API_TOKEN`
by the clients.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from mllmrec.errors import BackendError, SettingsError, install_command
from mllmrec.progress import note

ALLOWED = ["*.safetensors", "*.json", "*.jinja", "merges.txt", "vocab.txt", "tokenizer.model", "LICENSE*"]
IGNORED = ["*/*", "consolidated*"]
"""Folders hold the same weights in other formats, and `consolidated` files hold them a second time."""


def from_huggingface(model_id: str, revision: str | None, folder: Path) -> str:
    """Download a snapshot into `folder` and return the commit it was taken from."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub import errors as hub
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        info = HfApi().model_info(model_id, revision=revision)
        note(f"Licence of {model_id}: {_licence(info.tags or [])}.")
        snapshot_download(
            model_id, revision=info.sha, local_dir=folder, allow_patterns=ALLOWED, ignore_patterns=IGNORED
        )
    except hub.HFValidationError as error:
        raise SettingsError(f"{model_id!r} is no id of a model at the hub: {error}") from error
    except hub.GatedRepoError as error:
        raise BackendError(
            f"{model_id} is open only to those who accept its licence. Accept it on the model's page, set the "
            "environment variable HF_TOKEN to a key of your account, and run the command again."
        ) from error
    except hub.RevisionNotFoundError as error:
        raise BackendError(f"{model_id} has no revision {revision!r}. Choose another --revision.") from error
    except hub.RepositoryNotFoundError as error:
        raise BackendError(f"The hub has no model {model_id}, or keeps it private. Check the id.") from error
    except hub.OfflineModeIsEnabled as error:
        raise BackendError(
            f"{model_id} can't be downloaded while HF_HUB_OFFLINE is set. Unset it and run the command again."
        ) from error
    except Exception as error:
        raise _unreachable(model_id, os.environ.get("HF_ENDPOINT", "https://huggingface.co"), error) from error
    return str(info.sha)


def from_modelscope(model_id: str, revision: str | None, folder: Path) -> str:
    """Download a snapshot into `folder` and return the revision asked for; ModelScope has no commits."""
    try:
        from modelscope import snapshot_download
    except ImportError as error:
        raise BackendError(
            "Downloading from ModelScope needs the package modelscope, which is not installed. Run "
            f"`{install_command('modelscope')}`, or use --from huggingface."
        ) from error
    note(f"Licence of {model_id}: see https://modelscope.cn/models/{model_id}.")
    try:
        snapshot_download(
            model_id, revision=revision, local_dir=str(folder), allow_patterns=ALLOWED, ignore_patterns=IGNORED
        )
    except Exception as error:
        raise _unreachable(model_id, "ModelScope", error) from error
    return revision or "master"


def _licence(tags: list[str]) -> str:
    return next((tag.removeprefix("license:") for tag in tags if tag.startswith("license:")), "not stated")


def _unreachable(model_id: str, where: str, error: Exception) -> BackendError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return BackendError(
        f"{model_id} can't be downloaded from {where}: {reason.rstrip('.')}. Check the network and run the same "
        "command again; the files that arrived whole are kept."
    )
