"""What a row costs by each layout, counted, so that the cheapest can be taken.

Multiply-adds of the decoder's layers, and numbers of a cache that are copied, each worth as much time as `COPY`
multiply-adds (measured on a CPU; a GPU's ratio is of the same order). The projection onto the vocabulary is the same
for all. A tree reads every shared token once, and each of its tokens attends to all the others; a cache is copied for
each answer, and its tokens attend to their own answer alone. So trees pay for tens of candidates and caches for very
many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mllmrec.models.cache_layout import paths_behind, stem_of
from mllmrec.models.positions import causal_lm
from mllmrec.models.tries import Row

Layout = Literal["tree", "cache", "apart"]
COPY = 250.0


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Multiply-adds: `token` of one token's linear layers, `pair` of one query with one key; `kept` numbers a token."""

    token: float
    pair: float
    kept: float

    @classmethod
    def of(cls, model: Any) -> Costs:
        """The costs of a transformers causal LM, from its parameters and configuration."""
        causal = causal_lm(model)
        config = causal.config.get_text_config()
        embedding = causal.get_input_embeddings().weight.numel()
        token = sum(weight.numel() for weight in causal.get_decoder().parameters()) - embedding
        heads = _number(config, "num_attention_heads") or 1
        width = _number(config, "head_dim") or config.hidden_size // heads
        groups = _number(config, "num_key_value_heads") or heads
        layers = config.num_hidden_layers
        return cls(token=float(token), pair=2.0 * heads * width * layers, kept=2.0 * groups * width * layers)

    def cheapest_first(self, row: Row, layouts: Sequence[Layout]) -> list[Layout]:
        """Trees and caches by what they cost the row; of equals, in the order given."""
        if len(layouts) == 1:
            return [*layouts]
        return sorted(layouts, key=lambda layout: self.tree(row) if layout == "tree" else self.cache(row))

    def tree(self, row: Row) -> float:
        prompt, nodes = len(row.prompt_T), len(row.trie.tokens)
        return self.token * (prompt + nodes) + self.pair * (prompt**2 / 2 + nodes * (prompt + nodes))

    def cache(self, row: Row) -> float:
        stem = stem_of(row.trie)
        prompt, paths = len(row.prompt_T) + len(stem), [len(path.nodes) for path in paths_behind(row.trie, stem, 0)]
        tokens = prompt + sum(paths)
        pairs = prompt**2 / 2 + sum(path * (prompt + path) for path in paths)
        return self.token * tokens + self.pair * pairs + COPY * self.kept * prompt * len(paths)


def _number(config: Any, name: str) -> int:
    """A number of a configuration; 0 where there is none, or another one for each layer."""
    try:
        return int(getattr(config, name, None) or 0)
    except RuntimeError:  # layers that differ
        return 0
