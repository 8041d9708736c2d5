"""Loading causal LMs from folders or the hub, and generating with them.

The choices made for the user (device, number format, which adapter on which model) are written to standard error. An
adapter loads only on the model it was trained on: its manifest holds that model's hash.

What a folder holds is checked before it is used. The libraries fill missing weights with random numbers, cut
vocabularies silently, and name a missing package where a model is quantized; here each of these is refused in one
sentence, before any weight is read where that is possible.

Answers are decoded with their marks of reasoning, which are special tokens in some tokenizers and plain text in others:
without them reasoning can't be separated from the answer. All other special tokens are dropped.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    Mxfp4Config,
)
from transformers.utils import logging as transformers_logging

from mllmrec.data.model_folders import is_adapter, lacking, misnamed, require_adapter
from mllmrec.data.prompts import PromptFormat
from mllmrec.data.visible_answer import is_mark, visible_answer
from mllmrec.errors import ArtifactError, BackendError, SettingsError
from mllmrec.models.adapters import check_origin, fold, foldable, put_on, refuse_adapters_inside
from mllmrec.models.base import Tokens
from mllmrec.models.chat import Chat, stop_ids
from mllmrec.models.chat_templates import read_template
from mllmrec.models.costs import Layout
from mllmrec.models.positions import is_recurrent, verify_scaling
from mllmrec.models.scoring import HuggingFaceScorer
from mllmrec.models.thinking import HuggingFaceThinker
from mllmrec.progress import note
from mllmrec.storage.manifests import Manifest, hash_model, refuse_altered_weights
from mllmrec.storage.workspace import Workspace

Device = Literal["auto", "cpu", "cuda", "mps"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]

UNPACKED = {"mxfp4": Mxfp4Config}
"""Number formats that the library unpacks into ordinary weights by itself: gpt-oss is published in one only."""


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A causal LM with its tokenizer; `names` are the folders or hub ids it was put together from, base first."""

    model: Any
    tokenizer: Any
    chat: Chat
    names: tuple[str, ...]
    hashes: dict[str, str]

    def scorer(
        self, max_tokens: int, temperature: float = 1.0, layout: Layout | Literal["auto"] = "auto"
    ) -> HuggingFaceScorer:
        """Exact scores in batches of at most `max_tokens`. Raises BackendError for a model that can't give them."""
        return HuggingFaceScorer(self.model, max_tokens, temperature, layout)

    def generator(self) -> HuggingFaceGenerator:
        """Answers by beam search."""
        return HuggingFaceGenerator(self)

    def thinker(self) -> HuggingFaceThinker:
        """Thoughts by sampling. Raises BackendError for a model that can't be scored exactly."""
        return HuggingFaceThinker(HuggingFaceScorer(self.model), self.chat, MarkedDecoder(self.tokenizer).decode)


def open_engine(
    workspace: Workspace,
    base: str | Path,
    adapter: Path | None,
    *,
    device: Device,
    dtype: Dtype,
    force: bool,
    chat_template: str = "",
) -> LoadedModel:
    """A model that is there to rank, not to be trained: its adapters are folded in where that is exact."""
    return folded(load(workspace, base, adapter, device=device, dtype=dtype, force=force, chat_template=chat_template))


def load(
    workspace: Workspace,
    name: str | Path,
    adapter: Path | None = None,
    *,
    device: Device = "auto",
    dtype: Dtype = "auto",
    force: bool = False,
    thinking: bool | None = None,
    chat_template: str = "",
) -> LoadedModel:
    """A model by folder under the root, any path, or hub id, with an adapter on top if one is given.

    It is asked in the chat format that it was trained with; `thinking` is a teacher's, see `Chat`. `chat_template`
    (plain, or a file) takes the place of the model's own.

    Raises ArtifactError when a folder is incomplete or no longer what its manifest vouches for, or the adapter was
    trained on another model (unless `force`) or doesn't fit this one, SettingsError when the device isn't there,
    BackendError when the library can't read the model.
    """
    quieten()
    source = resolve(workspace, str(name))
    refuse_altered_weights(Path(source))
    if adapter is not None:
        require_adapter(adapter)
        refuse_altered_weights(adapter)
    chosen_device, chosen_dtype = choose_device(device), choose_dtype(dtype, choose_device(device))
    config = read_config(source)
    tokenizer = read_pretrained(AutoTokenizer, source)
    names = [str(source)] if adapter is None else [str(source), str(adapter)]
    formats = (PromptFormat.of(Manifest.read(Path(part))) for part in reversed(names))
    trained, template = next(filter(None, formats), None), read_template(chat_template)
    chat = Chat(tokenizer, thinking=thinking, trained=trained, template=template)
    require_rows(source, chat, config)
    model = read_weights(AutoModelForCausalLM, source, config, dtype=chosen_dtype)
    refuse_adapters_inside(model, source)
    hashes = {"model": hash_model(Path(source)) if Path(source).is_dir() else source}
    if adapter is not None:
        check_origin(adapter, hashes["model"], str(source), force=force)
        model = put_on(model, adapter)
        hashes["adapter"] = hash_model(adapter)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = model.to(chosen_device).eval()
    note(f"model: {' + '.join(names)} ({num_parameters(model)} parameters, {chosen_dtype} on {chosen_device})")
    # Stored with what is trained, so that servers stop there too.
    model.generation_config.eos_token_id = stop_ids(model, chat.end_id)
    return LoadedModel(model=model, tokenizer=tokenizer, chat=chat, names=tuple(names), hashes=hashes)


def folded(loaded: LoadedModel) -> LoadedModel:
    """The model with its adapters added into its weights, where that rounds next to nothing away (float32).

    A layer is then one product in place of three. In other number formats, and without adapters, it stays as it is.
    """
    return replace(loaded, model=fold(loaded.model)) if foldable(loaded.model) else loaded


def quieten() -> None:
    """Keep the libraries' own remarks off the screen; this program reports what a user should know."""
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl|peft)\.")


def resolve(workspace: Workspace, name: str) -> str:
    """The folder of a model, checked to be complete, or the hub id that `name` must be.

    Raises ArtifactError listing what is missing, what is there, and the next command.
    """
    folder = workspace.model(name)
    if folder is not None:
        if is_adapter(folder):
            raise misnamed(folder)
        missing = lacking(folder)
        if missing:
            there = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
            raise ArtifactError(
                f"{folder} is no complete model folder: {', '.join(missing)} missing; it holds {there}. "
                "Fetch it again with `mllmrec fetch backbone`, or name another folder."
            )
        return str(folder)
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return name
    models = sorted(path.parent.name for path in workspace.root.glob("*/config.json"))
    known = name if name.startswith("Qwen") else "Qwen3-4B"
    raise ArtifactError(
        f"There is no model {name!r}: {workspace.root / name} is no folder. Models under {workspace.root}: "
        f"{', '.join(models) or 'none'}. Fetch one with `mllmrec fetch backbone Qwen/{known}`, or make a small one "
        "with `mllmrec backbone tiny`."
    )


def portable(workspace: Workspace, source: str) -> str:
    """A model's name for manifests: a path below the root where it lies there, so that a workspace can be moved."""
    path, root = Path(source).resolve(), workspace.root.resolve()
    if not path.is_dir():
        return source
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def choose_device(device: Device) -> torch.device:
    """The device asked for, or the best one here."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    elif (device == "cuda" and not torch.cuda.is_available()) or (
        device == "mps" and not torch.backends.mps.is_available()
    ):
        raise SettingsError(f"--device {device} was asked for and there is none here. Use --device auto or cpu.")
    return torch.device(device, int(os.environ.get("LOCAL_RANK", "0"))) if device == "cuda" else torch.device(device)


def choose_dtype(dtype: Dtype, device: torch.device) -> torch.dtype:
    """bfloat16 on a GPU that has it, float32 elsewhere, unless asked otherwise."""
    if dtype != "auto":
        chosen: torch.dtype = getattr(torch, dtype)
        return chosen
    return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32


class HuggingFaceGenerator:
    """A [`TextGenerator`][mllmrec.models.base.TextGenerator]: beam search over a transformers causal LM.

    Answers come in the order of their log-probability, as exact scores have it: length counts for nothing.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded
        self._decoder = MarkedDecoder(loaded.tokenizer)

    def generate(self, prompts: Sequence[Tokens], *, num_answers: int, max_new_tokens: int) -> list[list[str]]:
        verify_scaling(self.loaded.model, max(map(len, prompts)) + max_new_tokens)
        # Recurrent models would read padding, and not all of them keep the rows of a batch apart.
        batches = [[prompt] for prompt in prompts] if is_recurrent(self.loaded.model) else [prompts]
        texts = [text for batch in batches for text in self._write(batch, num_answers, max_new_tokens)]
        return [texts[start : start + num_answers] for start in range(0, len(texts), num_answers)]

    @torch.no_grad()
    def _write(self, prompts: Sequence[Tokens], num_answers: int, max_new_tokens: int) -> list[str]:
        model, pad = self.loaded.model, self.loaded.tokenizer.pad_token_id
        ends = stop_ids(model, self.loaded.chat.end_id)
        width = max(len(prompt) for prompt in prompts)
        input_ids = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts])
        attention = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        try:
            output = model.generate(
                input_ids=input_ids.to(model.device),
                attention_mask=attention.to(model.device),
                do_sample=False,
                num_beams=num_answers,
                num_return_sequences=num_answers,
                length_penalty=0.0 if num_answers > 1 else None,
                max_new_tokens=max_new_tokens,
                eos_token_id=ends,
                pad_token_id=pad,
                temperature=None,
                top_p=None,
                top_k=None,
            )
        except ValueError as error:
            message = " ".join(str(error).split()).rstrip(".")
            raise BackendError(
                f"{' + '.join(self.loaded.names)} can't write {num_answers} answers to a prompt: {message}. "
                "Choose another model, or ask for one answer (--top-k 1)."
            ) from error
        answers = [_ended(row, ends) for row in output[:, width:].tolist()]
        return [visible_answer(self._decoder.decode(answer)).text for answer in answers]


def num_parameters(model: Any) -> str:
    """The size of a model for messages: 4.0B, 0.06M."""
    count = sum(parameter.numel() for parameter in model.parameters())
    return f"{count / 1e9:.1f}B" if count >= 1e9 else f"{count / 1e6:.2f}M"


def read_pretrained(kind: Any, source: str, **options: Any) -> Any:
    """`kind.from_pretrained(source)`; a BackendError in one sentence where the library can't read it."""
    try:
        return kind.from_pretrained(source, trust_remote_code=False, **options)
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise BackendError(
            f"{source} can't be loaded: {first} Check the folder, or fetch the model with `mllmrec fetch backbone`."
        ) from error


def read_config(source: str) -> Any:
    """The configuration of a model whose weights are its own. Raises BackendError for a quantized one, by its method.

    What is quantized (bitsandbytes, AWQ, GPTQ and others) needs a package and a GPU of its own to be read, and neither
    adapters nor merged weights would be those that were trained.
    """
    config = read_pretrained(AutoConfig, source)
    method = quantization(config)
    if method and method not in UNPACKED:
        raise BackendError(
            f"{source} is quantized by {method} (quantization_config in config.json), and such weights can be neither "
            "scored exactly nor trained here. Fetch the model that it was made from."
        )
    return config


def quantization(config: Any) -> str:
    """The method by which a model is quantized; empty where it isn't."""
    options = getattr(config, "quantization_config", None) or {}
    options = options if isinstance(options, dict) else options.to_dict()
    is_bitsandbytes = bool({"load_in_4bit", "load_in_8bit"} & options.keys())
    method = options.get("quant_method") or ("bitsandbytes" if is_bitsandbytes else "")
    return str(getattr(method, "value", method))


def read_weights(kind: Any, source: str, config: Any, **options: Any) -> Any:
    """A model with every weight from its files, by the attention it has: fused where it can be, else eager.

    Raises BackendError when the files lack a weight, which the library would start at random.
    """
    if unpacked := UNPACKED.get(quantization(config)):
        options["quantization_config"] = unpacked(dequantize=True)
    model, landed = read_pretrained(
        kind, source, attn_implementation=None, use_safetensors=True, output_loading_info=True, **options
    )
    if lost := sorted(landed["missing_keys"]):
        raise BackendError(
            f"{source} lacks {len(lost)} weights of {type(model).__name__} (such as {lost[0]}), which would be random. "
            "Expected a weight for each place of the model; fetch it again with `mllmrec fetch backbone`, or correct "
            "its config.json."
        )
    return model


def save_weights(model: Any, folder: Path, origin: str | Path) -> None:
    """An ordinary model folder, in the form of the model's `origin`; weights that were unpacked stay unpacked."""
    model.save_pretrained(folder, save_original_format=not quantization(read_config(str(origin))))


def require_rows(source: str, chat: Chat, config: Any) -> None:
    """Refuse a tokenizer that writes tokens for which the model has no embedding.

    A control token without a row is harmless where the chat template doesn't use it, because no text may spell it.
    """
    tokenizer, rows = chat.tokenizer, config.get_text_config().vocab_size
    beyond = {number: token for token, number in tokenizer.get_vocab().items() if number >= rows}
    used = {*chat.prompt_ids("x"), chat.end_id} & beyond.keys()
    spelt = [
        number
        for number, token in beyond.items()
        if number not in tokenizer.added_tokens_decoder or set(chat.encode(chat.harmless(token))) & beyond.keys()
    ]
    if used or spelt:
        number = min(used or spelt)
        raise BackendError(
            f"The tokenizer of {source} writes {len(beyond)} tokens for which its model has no row (such as "
            f"{beyond[number]!r}, number {number}): the embeddings have {rows} rows. Expected tokenizer and model of "
            "one origin; fetch them again with `mllmrec fetch backbone`, or resize the embeddings and train them."
        )


class MarkedDecoder:
    """Decodes answers of one tokenizer, marks of reasoning included."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        special = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
        dropped = sorted((token for token in special if not is_mark(token)), key=len, reverse=True)
        self._dropped = re.compile("|".join(map(re.escape, dropped)) or r"(?!)")

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, which hold the answer up to its end token."""
        text: str = self._tokenizer.decode(ids, skip_special_tokens=False)
        return self._dropped.sub("", text)


def _ended(row: list[int], ends: Sequence[int]) -> list[int]:
    """An answer up to the first of its end tokens; what fills the row behind it depends on its batch."""
    return row[: next((index + 1 for index, token in enumerate(row) if token in ends), len(row))]
