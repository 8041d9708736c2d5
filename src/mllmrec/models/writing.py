"""How a local model writes the texts of many requests, and the teacher that reads text.

Requests are written batch by batch, each as if it were alone. They are drawn a few batches at a time and sorted by
size, so that a batch holds rows of like length and the largest comes first. Prompts are padded on the left and masked
there. Writing is greedy; above temperature 0 noise is added to the logits before the largest is taken (the Gumbel-max
trick, which samples exactly), and the noise depends on the request's key alone, so that neither batches nor order
decide a text. The sampling settings of the model's folder are not used. Recurrent models, which would read padding, get
one prompt at a time. A batch that doesn't fit into the device's memory is halved and tried again.

`TextTeacher` is any causal LM with a chat template, for refining chains of thought from captions and titles. With
--thinking a model may reason before it answers; its reasoning is counted in its tokens and dropped, and a text without
an answer behind the reasoning is a failure.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from mllmrec.data.draws import generator
from mllmrec.data.visible_answer import Visible, open_thought, visible_answer
from mllmrec.errors import BackendError
from mllmrec.models.base import Reply, Request
from mllmrec.models.chat import Chat, stop_ids
from mllmrec.models.huggingface import MarkedDecoder, load, portable
from mllmrec.models.positions import is_recurrent, scaling_limit
from mllmrec.progress import note
from mllmrec.settings.texts import TeacherSettings
from mllmrec.storage.workspace import Workspace

BATCHES_AHEAD = 4
PIXELS_PER_CHARACTER = 256
"""A token of text is about four characters, one of an image 32 x 32 pixels."""

Inputs = dict[str, torch.Tensor]


class UnfitError(ValueError):
    """A request that can't be put to the model; the message is the failure in one stable word."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """The tokens of a request, and what the model takes beside them (image patches), joined row by row in a batch."""

    key: str
    ids: list[int]
    beside: Inputs = field(default_factory=dict)


class Writer:
    """Continues the prompts of one model. `batch` shrinks for good when memory runs out.

    Failures: truncated (no end token within `max_new_tokens`), empty, only_reasoning and unfinished_thought (nothing
    visible), prompt_too_long, out_of_memory (alone in its batch), and those that making the prompt raises as
    UnfitError.
    """

    def __init__(self, model: Any, chat: Chat, *, batch: int, max_new_tokens: int, temperature: float = 0.0) -> None:
        self.model, self.chat = model, chat
        self.batch = 1 if is_recurrent(model) else batch
        self.max_new_tokens, self.temperature = max_new_tokens, temperature
        self.ends = frozenset(stop_ids(model, chat.end_id))
        self.pad_id: int = chat.end_id if chat.tokenizer.pad_token_id is None else chat.tokenizer.pad_token_id
        limits = (getattr(model.config.get_text_config(), "max_position_embeddings", None), scaling_limit(model))
        self.longest_prompt: int = min([limit for limit in limits if limit], default=sys.maxsize) - max_new_tokens
        self.image_id: int | None = getattr(model.config, "image_token_id", None)
        self._opened = open_thought(chat.prompt(""))
        self._decoder = MarkedDecoder(chat.tokenizer)
        self._noted = False
        model.generation_config = GenerationConfig(eos_token_id=sorted(self.ends), pad_token_id=self.pad_id)

    def answer(self, requests: Iterable[Request], prompt_of: Callable[[Request], Prompt]) -> Iterator[Reply]:
        """Yield the replies of a batch when it is done."""
        source = iter(requests)
        while ahead := sorted(islice(source, self.batch * BATCHES_AHEAD), key=_size, reverse=True):
            while ahead:
                chosen, ahead = ahead[: self.batch], ahead[self.batch :]
                yield from self._answer(chosen, prompt_of)

    def _answer(self, requests: Sequence[Request], prompt_of: Callable[[Request], Prompt]) -> list[Reply]:
        started, prompts, replies = time.perf_counter(), [], []
        for request in requests:
            try:
                prompts.append(self._fitting(prompt_of(request)))
            except UnfitError as unfit:
                replies.append(Reply(key=request.key, text=None, failure=str(unfit), usage={}))
        written = self._continue(prompts) if prompts else []
        seconds = (time.perf_counter() - started) / len(requests)
        return replies + [self._reply(*pair, seconds) for pair in zip(prompts, written, strict=True)]

    def _fitting(self, prompt: Prompt) -> Prompt:
        if len(prompt.ids) > self.longest_prompt:
            raise UnfitError("prompt_too_long")
        return prompt

    def _continue(self, prompts: Sequence[Prompt]) -> list[list[int] | None]:
        """The new tokens of each prompt; None where memory doesn't hold it even alone."""
        try:
            return list(self._generate(prompts))
        except torch.OutOfMemoryError:
            half = len(prompts) // 2
        # Outside the handler, whose traceback holds on to the tensors of the failed attempt.
        torch.cuda.empty_cache()
        if not half:
            return [None]
        self.batch = min(self.batch, half)
        if not self._noted:
            note(f"The device's memory doesn't hold {len(prompts)} texts at a time; going on with half as many.")
            self._noted = True
        return self._continue(prompts[:half]) + self._continue(prompts[half:])

    def _generate(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        inputs = {name: tensor.to(self.model.device) for name, tensor in self.collate(prompts).items()}
        noise = [Noise([prompt.key for prompt in prompts], self.temperature)] if self.temperature else []
        output = self.model.generate(
            **inputs,
            do_sample=False,
            max_new_tokens=self.max_new_tokens,
            logits_processor=LogitsProcessorList(noise),
        )
        written: list[list[int]] = output[:, inputs["input_ids"].shape[1] :].tolist()
        return written

    def collate(self, prompts: Sequence[Prompt]) -> Inputs:
        """The model's inputs: ids padded on the left, the mask, and what stands beside the ids, row after row."""
        width = max(len(prompt.ids) for prompt in prompts)
        padding = [width - len(prompt.ids) for prompt in prompts]
        rows = zip(padding, prompts, strict=True)
        input_ids = torch.tensor([[self.pad_id] * pad + prompt.ids for pad, prompt in rows])
        mask = torch.tensor([[0] * pad + [1] * (width - pad) for pad in padding])
        names = dict.fromkeys(name for prompt in prompts for name in prompt.beside)
        beside = {
            name: torch.cat([prompt.beside[name] for prompt in prompts if name in prompt.beside]) for name in names
        }
        if beside:
            assert self.image_id is not None, "only a model that sees has anything beside its tokens"
            beside["mm_token_type_ids"] = input_ids.eq(self.image_id).int()
        return {"input_ids": input_ids, "attention_mask": mask, **beside}

    def _reply(self, prompt: Prompt, written: list[int] | None, seconds: float) -> Reply:
        usage = {"calls": 1, "prompt_tokens": len(prompt.ids), "completion_tokens": 0, "seconds": seconds}
        if written is None:
            return Reply(key=prompt.key, text=None, failure="out_of_memory", usage=usage)
        length = next((index for index, token in enumerate(written) if token in self.ends), None)
        usage["completion_tokens"] = len(written) if length is None else length + 1
        if length is None:
            return Reply(key=prompt.key, text=None, failure="truncated", usage=usage)
        text, fault = self._visible(written[:length])
        return Reply(key=prompt.key, text=None if fault else text, failure=fault, usage=usage)

    def _visible(self, written: list[int]) -> Visible:
        """The answer without hidden reasoning and control tokens."""
        return visible_answer(self._opened + self._decoder.decode(written))


class Noise(LogitsProcessor):
    """Gumbel noise on logits over a temperature: the largest sum is a draw of the softmax. A generator a row."""

    def __init__(self, keys: Sequence[str], temperature: float) -> None:
        seeds = [generator(0, "teacher", key).getrandbits(63) for key in keys]
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.temperature = temperature

    def __call__(self, _input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        shape = scores.shape[1:]
        noise = torch.stack([-torch.empty(shape).exponential_(generator=own).log() for own in self.generators])
        return scores / self.temperature + noise.to(scores.device)


class TextTeacher:
    """A [`Teacher`][mllmrec.models.base.Teacher] over any causal LM with a chat template.

    Raises ArtifactError when the folder is incomplete, SettingsError when the device isn't there, and BackendError
    when the model can't chat.
    """

    def __init__(self, settings: TeacherSettings, workspace: Workspace) -> None:
        loaded = load(
            workspace, settings.model, device=settings.device, dtype=settings.dtype, thinking=settings.thinking
        )
        self.name = portable(workspace, loaded.names[0])
        self.chat = loaded.chat
        self.writer = Writer(
            loaded.model,
            self.chat,
            batch=settings.batch,
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
        )

    def answer(self, requests: Iterable[Request]) -> Iterator[Reply]:
        return self.writer.answer(requests, self._prompt)

    def _prompt(self, request: Request) -> Prompt:
        assert not request.pictures, "pictures are for a model that sees"
        try:
            return Prompt(key=request.key, ids=self.chat.prompt_ids(self.chat.harmless(request.text)))
        except BackendError as error:
            raise UnfitError("control_token") from error


def _size(request: Request) -> int:
    """How much there is to read, in characters."""
    pixels = sum(picture.rgb.shape[0] * picture.rgb.shape[1] for picture in request.pictures)
    return len(request.text) + pixels // PIXELS_PER_CHARACTER
