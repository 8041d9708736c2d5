"""`mllmrec backbone`: ordinary model folders, of a small Qwen3 from scratch or of what a GGUF file holds.

The architecture, the chat template and the special tokens of the small Qwen3 are Qwen3's own, only smaller, so that
every later stage runs the code that a 4B model runs. The vocabulary is byte-level BPE trained on the dataset's titles,
the prompt template, and the captions and traces where there are any; an item's number becomes one token where the
vocabulary has room. `pretraining.py` trains the weights; without steps they are random.

A GGUF file (`models/gguf_files.py`) is unpacked. Its weights are products of scales, which bfloat16 would round once
more, to three digits, so that float32 is what is written unless half the size is asked for.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from mllmrec.data.item_files import read_captions
from mllmrec.data.prompts import LIST_QUESTION, Renderer
from mllmrec.data.sequences import Catalogue, Interactions
from mllmrec.models.chat import Chat
from mllmrec.models.chat_templates import PLAIN_NAME, read_template, template_hash
from mllmrec.models.gguf_files import GgufFile, read_model, require_gguf_file, verify_saved_tokenizer
from mllmrec.models.huggingface import num_parameters, quieten, require_rows
from mllmrec.models.small_qwen3 import build_model, make_tokenizer, save
from mllmrec.records import RankingExample, Summary
from mllmrec.settings.resources import ImportBackboneSettings
from mllmrec.settings.training import BackboneSettings
from mllmrec.storage.json_streams import read_list
from mllmrec.storage.locks import locking
from mllmrec.storage.manifests import drop_marker, finished, hash_files, making, settle, write_manifest
from mllmrec.storage.workspace import Workspace, named, sha256
from mllmrec.training.datasets import refuse_leaks
from mllmrec.training.pretraining import pretrain

STATE = "pretraining"
ID_WEIGHT = 20
TRACES_READ = 500


def model_folder(settings: BackboneSettings | ImportBackboneSettings, workspace: Workspace) -> Path:
    return workspace.root / named("model", settings.out)


@locking(model_folder)
def run(settings: BackboneSettings, workspace: Workspace) -> Summary:
    """Write the model folder <root>/<out>."""
    started = time.monotonic()
    folder = model_folder(settings, workspace)
    inputs = _inputs(settings, workspace)
    if finished(folder, settings, inputs) is not None:
        drop_marker(folder)
        return Summary(headline=f"The model {folder} is there already; nothing to do.", artifact=folder)
    with making(folder, settings) as draft:
        model, tokenizer, losses = _trained(settings, workspace, inputs, folder / STATE)
        save(model, tokenizer, draft)
        details = {"num_parameters": model.num_parameters(), "losses": losses}
        settle(draft, folder)
        write_manifest(folder, settings, inputs, started=started, details=details)
    return Summary(
        headline=f"A Qwen3 of {model.num_parameters() / 1e6:.2f}M parameters, {len(tokenizer)} tokens, in {folder}",
        artifact=folder,
        facts=details,
    )


@locking(model_folder)
def run_import(settings: ImportBackboneSettings, workspace: Workspace) -> Summary:
    """Write the model folder <root>/<out> of a GGUF file; see `GgufFile.read` and `read_model` for what they raise."""
    started = time.monotonic()
    folder, path = model_folder(settings, workspace), Path(settings.file).expanduser()
    require_gguf_file(path)
    inputs = {"file": sha256(path)} | template_hash(settings.chat_template)
    if finished(folder, settings, inputs) is not None:
        drop_marker(folder)
        return Summary(headline=f"The model {folder} is there already; nothing to do.", artifact=folder)
    quieten()
    file = GgufFile.read(path)
    with making(folder, settings) as draft:
        model, tokenizer = read_model(file, getattr(torch, settings.dtype))
        tokenizer.name_or_path = path.name
        chat = Chat(tokenizer, template=read_template(settings.chat_template))
        require_rows(path.name, chat, model.config)
        save(model, tokenizer, draft)
        verify_saved_tokenizer(file, tokenizer, draft)
        details = {
            "file": path.name,
            "architecture": file.architecture,
            "quantisation": file.quantisation,
            "formats": dict(Counter(file.formats.values())),
            "num_parameters": model.num_parameters(),
            "chat_template": (settings.chat_template or PLAIN_NAME) if chat.put_template else "the file's own",
        }
        settle(draft, folder)
        write_manifest(folder, settings, inputs, started=started, details=details)
    return Summary(
        headline=f"{path.name} ({file.architecture}, {file.quantisation}): {num_parameters(model)} parameters in "
        f"{settings.dtype} in {folder}. Next: mllmrec sft --backbone {folder.name} --dataset NAME",
        artifact=folder,
        facts=details | {"sha256": inputs["file"]},
    )


def train_tokenizer(catalogue: Catalogue, vocab_size: int, prose: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """A vocabulary of the catalogue's answers, the template and `prose`."""
    return make_tokenizer(itertools.chain(_corpus(catalogue), prose), vocab_size)


def _trained(
    settings: BackboneSettings, workspace: Workspace, inputs: Mapping[str, str], state: Path
) -> tuple[Any, PreTrainedTokenizerFast, dict[str, float]]:
    """The model, its tokenizer and the losses; what pre-training needs to go on after a stop is kept in `state`."""
    quieten()
    interactions = Interactions.load(workspace, settings.dataset)
    if settings.sequence_steps:
        refuse_leaks(interactions)
    tokenizer = train_tokenizer(interactions.catalogue, settings.vocab, _prose(settings, workspace))
    model = build_model(tokenizer, settings.layers, settings.width, settings.heads, settings.seed)
    losses = pretrain(model, tokenizer, interactions, settings, state, inputs)
    return model, tokenizer, losses


def _inputs(settings: BackboneSettings, workspace: Workspace) -> dict[str, str]:
    return hash_files(
        train=workspace.dataset(settings.dataset).split("train"),
        titles=workspace.dataset(settings.dataset).titles,
        captions=workspace.dataset(settings.dataset).captions,
        traces=workspace.dataset(settings.dataset).refined_cot,
    )


def _prose(settings: BackboneSettings, workspace: Workspace) -> list[str]:
    """Captions and some traces, where they are, so that their words become tokens too."""
    captions = read_captions(workspace, settings.dataset, "auto")
    path = workspace.dataset(settings.dataset).refined_cot
    traces = itertools.islice(read_list(path), TRACES_READ) if path.exists() else ()
    return [*captions.values(), *(str(trace.get("reasoning", "")) for trace in traces)]


def _corpus(catalogue: Catalogue) -> Iterator[str]:
    """Every answer, the ids often enough to become single tokens, and the template's own words."""
    renderer = Renderer(catalogue=catalogue, encode=str.split, max_prompt_tokens=1)
    blank = RankingExample(example_id="", user_id="", history=(), candidates=(), target_id="", split="train")
    template = renderer.text(blank, hint="") + LIST_QUESTION
    chat = "system\nuser\nassistant\n\n"
    for item_id in catalogue:
        yield renderer.answer(item_id)
        yield from [item_id] * ID_WEIGHT
        yield template + chat
