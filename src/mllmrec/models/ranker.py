"""The one way to a model that ranks: an engine opens it, and it is asked for scores, answers and prompts.

Whatever scores candidates comes here. `load_ranker` opens a model by its folder or hub id, `ranker_of` takes one that
is loaded already, and `scorer_of` scores with the live model of a trainer, whose weights change from step to step.

An engine is a way to run a model. A new one is a module with an `Engine` in it and one line in `ENGINES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

from mllmrec.data.sequences import Catalogue
from mllmrec.errors import advising
from mllmrec.models.base import CandidateScorer, TextGenerator, Thinker
from mllmrec.models.chat import Chat, Encoder
from mllmrec.models.costs import Layout
from mllmrec.models.huggingface import Device, Dtype, open_engine, resolve
from mllmrec.models.scoring import HuggingFaceScorer
from mllmrec.models.suitability import require_context
from mllmrec.storage.workspace import Workspace

BATCH_TOKENS = 8192
"""Tokens of a scored batch, padding included, where no setting names another number."""


class Engine(Protocol):
    """A model that was opened, however it runs."""

    @property
    def chat(self) -> Chat:
        """The model's chat format, from its tokenizer and the prompt format it was trained with."""
        ...

    def scorer(
        self, max_tokens: int, temperature: float = 1.0, layout: Layout | Literal["auto"] = "auto"
    ) -> CandidateScorer:
        """A scorer of batches of at most `max_tokens`. Raises BackendError for a model that can't be scored exactly."""
        ...

    def generator(self) -> TextGenerator:
        """A writer of answers."""
        ...

    def thinker(self) -> Thinker:
        """A writer of thoughts. Raises BackendError for a model that can't be scored exactly."""
        ...


class OpenEngine(Protocol):
    """Opens a model from its folder or hub id; what it raises is in `mllmrec.models.huggingface.load`."""

    def __call__(
        self,
        workspace: Workspace,
        base: str | Path,
        adapter: Path | None,
        *,
        device: Device,
        dtype: Dtype,
        force: bool,
        chat_template: str = "",
    ) -> Engine: ...


ENGINES: Mapping[str, OpenEngine] = {"huggingface": open_engine}


@dataclass(frozen=True, kw_only=True)
class Ranker:
    """An opened model with the encoder that writes its prompts.

    `scorer` and `generator` are made when they are first asked for: a model that can't be scored exactly may still
    write answers. `advice` is what a verb offers in place of exact scores.
    """

    engine: Engine
    encoder: Encoder
    batch_tokens: int
    layout: Layout | Literal["auto"] = "auto"
    advice: str = "Choose another model."

    @cached_property
    def scorer(self) -> CandidateScorer:
        """Exact scores. Raises BackendError for a model that can't give them."""
        return self.scorer_at(1.0)

    @cached_property
    def generator(self) -> TextGenerator:
        """Answers that the model writes."""
        return self.engine.generator()

    @cached_property
    def thinker(self) -> Thinker:
        """Thoughts that the model writes before an answer."""
        return self.engine.thinker()

    def scorer_at(self, temperature: float) -> CandidateScorer:
        """Exact scores with the logits divided by `temperature`, as sampling at that temperature does."""
        with advising(self.advice):
            return self.engine.scorer(self.batch_tokens, temperature, self.layout)


def load_ranker(
    workspace: Workspace,
    base: str | Path,
    adapter: Path | None = None,
    *,
    catalogue: Catalogue,
    captions: Mapping[str, str],
    max_prompt_tokens: int,
    batch_tokens: int = BATCH_TOKENS,
    device: Device = "auto",
    dtype: Dtype = "auto",
    force: bool = False,
    chat_template: str = "",
    layout: Layout | Literal["auto"] = "auto",
    engine: str = "huggingface",
    advice: str = Ranker.advice,
) -> Ranker:
    """A model by folder under the root, any path, or hub id, with an adapter on top if one is given, ready to rank.

    Raises ArtifactError when a folder is incomplete or altered, or the adapter belongs to another model (unless
    `force`); SettingsError when the device isn't there or a prompt may be longer than what the model reads;
    BackendError when the library can't read the model.
    """
    require_context(resolve(workspace, str(base)), max_prompt_tokens)
    open_model = ENGINES[engine]
    opened = open_model(workspace, base, adapter, device=device, dtype=dtype, force=force, chat_template=chat_template)
    ranker = ranker_of(opened, catalogue, captions, max_prompt_tokens, batch_tokens, layout)
    return replace(ranker, advice=advice)


def ranker_of(
    engine: Engine,
    catalogue: Catalogue,
    captions: Mapping[str, str],
    max_prompt_tokens: int,
    batch_tokens: int = BATCH_TOKENS,
    layout: Layout | Literal["auto"] = "auto",
) -> Ranker:
    """The ranker of a model that is loaded already, for prompts about one catalogue."""
    encoder = Encoder.make(engine.chat, catalogue, captions, max_prompt_tokens)
    return Ranker(engine=engine, encoder=encoder, batch_tokens=batch_tokens, layout=layout)


def scorer_of(
    model: Any,
    max_tokens: int = BATCH_TOKENS,
    temperature: float = 1.0,
    layout: Layout | Literal["auto"] = "auto",
) -> HuggingFaceScorer:
    """A scorer over a trainer's live model (a transformers causal LM, adapters included).

    Raises BackendError for a model that can't be scored exactly.
    """
    return HuggingFaceScorer(model, max_tokens, temperature, layout)
