"""Texts as vectors of length one, so that a product of two is their cosine.

Two embedders, behind one method: TF-IDF over the items' own texts, which needs no weights and sees shared words, and a
sentence-transformers model, which sees shared meaning.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from mllmrec.errors import SettingsError, install_command

WORD = r"(?u)[^\W\d_]{2,}"


class Embedder(Protocol):
    """Turns texts into rows of length one; `fit` is called once, with the texts of all items."""

    def fit(self, texts: Sequence[str]) -> Any: ...

    def encode(self, texts: Sequence[str]) -> Any: ...


def make_embedders(name: str, device: str = "auto") -> tuple[Embedder, Embedder]:
    """Two embedders for two sets of texts: of `tfidf`, or one sentence-transformers model (folder or hub id) twice."""
    if name == "tfidf":
        return TfidfEmbedder(), TfidfEmbedder()
    embedder = SentenceEmbedder(name, device)
    return embedder, embedder


class TfidfEmbedder:
    """Words and neighbouring pairs, weighted by how few items have them; numbers and stop words count for nothing.

    Words are hashed, so that those no item has still make a text longer: one that shares a single word with an item
    among many of its own is far from it.
    """

    def __init__(self) -> None:
        from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

        self._counter = HashingVectorizer(
            strip_accents="unicode",
            stop_words="english",
            token_pattern=WORD,
            ngram_range=(1, 2),
            alternate_sign=False,
            norm=None,
        )
        self._weights = TfidfTransformer(sublinear_tf=True)

    def fit(self, texts: Sequence[str]) -> Any:
        return self._weights.fit_transform(self._counter.transform(texts))

    def encode(self, texts: Sequence[str]) -> Any:
        return self._weights.transform(self._counter.transform(texts))


class SentenceEmbedder:
    """A sentence-transformers model. Raises SettingsError when the library or the model isn't there."""

    def __init__(self, name: str, device: str = "auto") -> None:
        if importlib.util.find_spec("sentence_transformers") is None:
            raise SettingsError(
                f"--embedder {name} needs sentence-transformers. Install it: {install_command('embed')}; or use "
                "--embedder tfidf."
            )
        from sentence_transformers import SentenceTransformer

        from mllmrec.models.huggingface import quieten

        quieten()
        try:
            self._model = SentenceTransformer(
                name, device=None if device == "auto" else device, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            first = str(error).strip().splitlines()[0]
            raise SettingsError(
                f"--embedder {name} can't be loaded: {first} Expected a sentence-transformers model by folder or hub "
                "id; check it, or use --embedder tfidf."
            ) from error

    def fit(self, texts: Sequence[str]) -> Any:
        return self.encode(texts)

    def encode(self, texts: Sequence[str]) -> Any:
        vectors = self._model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(vectors, dtype=float)
