"""Reading what a model folder or hub repository holds, and refusing what would be read wrongly.

The libraries start weights that a folder lacks at random, cut vocabularies without a word, and name a missing package
where a model is quantized. Here each of these is one sentence, and as far as it can be before any weight is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import AutoConfig, Mxfp4Config

from mllmrec.backends.chat import Chat
from mllmrec.errors import BackendError

UNPACKED = {"mxfp4": Mxfp4Config}
"""Number formats that the library unpacks into ordinary weights by itself: gpt-oss is published in one only."""


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
            "scored exactly nor trained here. Fetch the model that it was made from; --dtype bfloat16 saves memory."
        )
    return config


def quantization(config: Any) -> str:
    """The method by which a model is quantized; empty where it isn't."""
    found = getattr(config, "quantization_config", None) or {}
    found = found if isinstance(found, dict) else found.to_dict()
    method = found.get("quant_method") or ("bitsandbytes" if {"load_in_4bit", "load_in_8bit"} & found.keys() else "")
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
