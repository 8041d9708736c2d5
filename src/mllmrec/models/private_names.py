"""The names of other libraries that this program uses though they are private, in one place.

Each is listed with the versions it was tried with and the parameters it had there. A name that is *read* is used as
long as it is there with these parameters; otherwise a BackendError says what to install. A name that is *replaced* to
save time is replaced in the versions it was tried with alone; in others the library's own, slower way is left as it is.
What each replacement saves is timed by `benchmarks/training.py`.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import version
from operator import attrgetter
from typing import Any

from mllmrec.errors import BackendError
from mllmrec.progress import note


@dataclass(frozen=True, kw_only=True)
class PrivateName:
    """A name of a library: `path` in `module`, what it is needed for, and as it was when it was tried.

    `versions` are the beginnings of the versions that were tried; `parameters` those of a function, None for a value.
    """

    library: str
    versions: tuple[str, ...]
    module: str
    path: str
    parameters: tuple[str, ...] | None
    purpose: str

    def __str__(self) -> str:
        return f"{self.module}.{self.path}"


LABELLED_ONLY = PrivateName(
    library="trl",
    versions=("1.16.",),
    module="trl.trainer.utils",
    path="_use_triton",
    parameters=("device",),
    purpose="projecting labelled positions alone onto the vocabulary",
)
LAYER_FORWARD = PrivateName(
    library="transformers",
    versions=("5.23.",),
    module="transformers.models.llama.modeling_llama",
    path="LlamaDecoderLayer.forward",
    parameters=(
        "self",
        "hidden_states",
        "attention_mask",
        "position_ids",
        "past_key_values",
        "use_cache",
        "position_embeddings",
        "kwargs",
    ),
    purpose="stopping the last layer at the keys and values of prompts",
)
GENERATE = PrivateName(
    library="trl",
    versions=("1.16.",),
    module="trl.trainer.grpo_trainer",
    path="GRPOTrainer._generate_single_turn",
    parameters=("self", "prompt_ids", "images", "multimodal_fields", "num_generations", "has_tool_images"),
    purpose="GRPO on answers that the model writes (--rollouts generate)",
)
COMPILE_TEMPLATE = PrivateName(
    library="transformers",
    versions=("5.23.",),
    module="transformers.utils.chat_template_utils",
    path="_compile_jinja_template",
    parameters=("chat_template",),
    purpose="writing a chat template on a fixed day",
)
IS_STATEFUL = PrivateName(
    library="transformers",
    versions=("5.23.",),
    module="transformers",
    path="PreTrainedModel._is_stateful",
    parameters=None,
    purpose="telling recurrent models from others",
)
REPLACED, READ = (LABELLED_ONLY, LAYER_FORWARD), (GENERATE, COMPILE_TEMPLATE, IS_STATEFUL)


@cache
def replaceable(name: PrivateName) -> bool:
    """Whether a name may be replaced: it is as it was tried, in a version that it was tried with; if not, a note."""
    fault = _fault(name)
    if fault is None and version(name.library).startswith(name.versions):
        return True
    note(
        f"{name.library} {version(name.library)} isn't a version that {name.purpose} was tried with "
        f"({_spelled(name)}), so training does without it: it comes to the same and takes longer."
    )
    return False


def require(name: PrivateName) -> None:
    """Raise BackendError when a name is gone, or takes other parameters than it did."""
    if fault := _fault(name):
        raise BackendError(
            f"{name.library} {version(name.library)} has changed: {name} {fault}, and {name.purpose} needs it. "
            f"Expected {name.library} {_spelled(name)}; install it: pip install '{name.library}=={name.versions[-1]}*'."
        )


def read(name: PrivateName) -> Any:
    """What the name stands for. Raises BackendError as `require` does."""
    require(name)
    return attrgetter(name.path)(import_module(name.module))


def _fault(name: PrivateName) -> str | None:
    """In what the installed library differs from the one that was tried; None where it doesn't."""
    try:
        value = attrgetter(name.path)(import_module(name.module))
    except (ImportError, AttributeError):
        return "is gone"
    if name.parameters is None:
        return None
    now = tuple(inspect.signature(value).parameters)
    return None if now == name.parameters else f"takes ({', '.join(now)}) in place of ({', '.join(name.parameters)})"


def _spelled(name: PrivateName) -> str:
    return " or ".join(f"{beginning}x" for beginning in name.versions)
