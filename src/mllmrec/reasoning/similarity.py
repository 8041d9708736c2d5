"""How close texts are: items as vectors, and the cosine of a trace with each.

Two embedders, behind one method: TF-IDF over the items' own texts, which needs no weights and sees shared words, and a
sentence-transformers model, which sees shared meaning. Both give vectors of length one, so that a product is a cosine.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mllmrec.errors import SettingsError

Floats = NDArray[np.float64]
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


class ItemSpace:
    """The texts of items as vectors, one row an item."""

    def __init__(self, texts: Mapping[str, str], embedder: Embedder) -> None:
        self.rows = {item: row for row, item in enumerate(texts)}
        self.embedder = embedder
        self.vectors = embedder.fit(list(texts.values()))

    def closeness(self, texts: Sequence[str]) -> Floats:
        """The cosine of each text with each item (texts, items); 0 where either holds no known word."""
        return _dense(self.embedder.encode(texts) @ self.vectors.T)

    def lengths(self, groups: Sequence[Sequence[int]]) -> Floats:
        """The length of the sum of each group's vectors, by which the group's summed cosines are divided."""
        sums = _indicator(groups, len(self.rows)) @ self.vectors
        squares = sums.multiply(sums) if hasattr(sums, "multiply") else np.square(sums)
        lengths: Floats = np.sqrt(np.asarray(squares.sum(axis=1), dtype=float).ravel())
        return lengths


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
                f"--embedder {name} needs sentence-transformers. Install it: pip install 'mllmrec-r1[embed]'; or use "
                "--embedder tfidf."
            )
        from sentence_transformers import SentenceTransformer

        from mllmrec.backends.huggingface import quieten

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


def _indicator(groups: Sequence[Sequence[int]], width: int) -> Any:
    """A sparse row for each group that counts its members."""
    from scipy.sparse import csr_matrix

    columns = [column for group in groups for column in group]
    rows = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    return csr_matrix((np.ones(len(columns)), (rows, columns)), shape=(len(groups), width))


def _dense(product: Any) -> Floats:
    return np.asarray(product.toarray() if hasattr(product, "toarray") else product, dtype=float)
