"""Answers read after the cache of their prompt, in rows of their own: for every model that can write text.

A batch of prompts is read as it would be before writing, padded on the left, into the library's own cache: keys and
values, a sliding window of them, or the state of recurrent and convolutional layers. The cache is then copied to one
row for each answer and the answers are read in one more pass. What all answers to a prompt begin with is read along
with it, and what all prompts of a batch begin with is read once, where layers don't mind padding behind it.

`read_apart` needs no cache at all: each answer is read behind a prompt of its own. It is slow and suits every model.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from transformers import DynamicCache

from mllmrec.models.positions import causal_lm, sees_everything
from mllmrec.models.tries import Row, Trie

CACHE_BYTES, CPU_CACHE_BYTES = 4 << 30, 256 << 20
"""Bounds on the copies of a cache that are held at once; on a CPU larger ones only leave its own caches."""
SHARED = 16
"""Tokens from which on it pays to read a common beginning first."""


@dataclass(frozen=True, kw_only=True)
class Path:
    """One row of a cached pass: the `nodes` of row `row` from behind its stem down to a leaf.

    The first `known` of them lie on an earlier path as well.
    """

    row: int
    nodes: list[int]
    known: int


def read_from_cache(model: Any, rows: Sequence[Row], max_tokens: int) -> list[torch.Tensor]:
    """Hidden states (1 + nodes, width) of each row: of its prompt's last token, and of its nodes.

    A pass over answers takes at most `max_tokens` of them. Differentiable for models without a recurrent state, whose
    caches are written over in place.
    """
    stems = [stem_of(row.trie) for row in rows]
    given = [[*row.prompt_T, *(row.trie.tokens[node] for node in stem)] for row, stem in zip(rows, stems, strict=True)]
    hidden_BT, cache, seen_BT = prefill(model, given, [1 + len(stem) for stem in stems])
    pieces = [
        [(range(-1, 0), hidden_T[-1 - len(stem) :][:1]), (stem, hidden_T[-1 - len(stem) :][1:])]
        for hidden_T, stem in zip(hidden_BT, stems, strict=True)
    ]
    paths = [path for row, stem in enumerate(stems) for path in paths_behind(rows[row].trie, stem, row)]
    for chunk in _chunks(paths, max_tokens, _rows_at_once(cache, len(rows), model.device)):
        hidden_CT = _read_chunk(model, rows, chunk, cache, seen_BT, [len(ids) for ids in given])
        for hidden_T, path in zip(hidden_CT, chunk, strict=True):
            pieces[path.row].append((path.nodes[path.known :], hidden_T[path.known : len(path.nodes)]))
    return [_in_order(parts) for parts in pieces]


def read_apart(model: Any, rows: Sequence[Row], max_tokens: int) -> list[torch.Tensor]:
    """The same from plain passes over whole texts, each answer behind its prompt, padded on the right."""
    decoder, pieces = causal_lm(model).get_decoder(), [list[tuple[Sequence[int], torch.Tensor]]() for _ in rows]
    paths = [path for number, row in enumerate(rows) for path in paths_behind(row.trie, [], number)]
    paths += [Path(row=number, nodes=[], known=0) for number, row in enumerate(rows) if not row.trie.tokens]
    widths = [len(rows[path.row].prompt_T) + len(path.nodes) for path in paths]
    for start, stop in _spans(widths, max_tokens):
        chunk, width = paths[start:stop], max(widths[start:stop])
        texts = [[*rows[path.row].prompt_T, *_tokens(rows, path)] for path in chunk]
        input_ids = torch.tensor([[*text, *[0] * (width - len(text))] for text in texts], device=model.device)
        hidden_BT = decoder(input_ids=input_ids, use_cache=False).last_hidden_state
        for hidden_T, path in zip(hidden_BT, chunk, strict=True):
            end = len(rows[path.row].prompt_T)
            if not pieces[path.row]:
                pieces[path.row].append((range(-1, 0), hidden_T[end - 1 : end]))
            new = hidden_T[end + path.known : end + len(path.nodes)]
            pieces[path.row].append((path.nodes[path.known :], new))
    return [_in_order(parts) for parts in pieces]


def stem_of(trie: Trie) -> list[int]:
    """The nodes that every longer answer passes, from the first on.

    >>> from mllmrec.models.tries import build_trie
    >>> stem_of(build_trie([[5, 6, 7, 1], [5, 6, 8, 1]]))
    [0, 1]
    """
    children: dict[int, list[int]] = {}
    for node, parent in enumerate(trie.parents):
        children.setdefault(parent, []).append(node)
    stem: list[int] = []
    while len(below := children.get(stem[-1] if stem else -1, [])) == 1:
        stem.append(below[0])
    return stem


def paths_behind(trie: Trie, stem: Sequence[int], row: int) -> Iterator[Path]:
    """The paths from behind the stem to each leaf."""
    inner, seen = {*trie.parents}, {*stem}
    for leaf in range(len(trie.tokens)):
        if leaf in inner or leaf in seen:
            continue
        nodes, node, above = list[int](), leaf, stem[-1] if stem else -1
        while node != above:
            nodes.append(node)
            node = trie.parents[node]
        nodes.reverse()
        known = sum(node in seen for node in nodes)
        seen.update(nodes)
        yield Path(row=row, nodes=nodes, known=known)


def prefill(
    model: Any, given: Sequence[Sequence[int]], kept: Sequence[int]
) -> tuple[torch.Tensor, DynamicCache, torch.Tensor]:
    """Read prompts: hidden states (B, T, width), the cache, and which of its places are no padding (B, S + T).

    The last `kept` tokens of each prompt are among the T.
    """
    causal = causal_lm(model)
    config, decoder = causal.config.get_text_config(decoder=True), causal.get_decoder()
    is_ragged = len({*map(len, given)}) > 1
    cache = DynamicCache(config=config)
    shared = _shared(given, kept) if not is_ragged or sees_everything(model) else 0
    if shared:
        start = torch.tensor([list(given[0][:shared])], device=model.device)
        decoder(input_ids=start, past_key_values=cache, use_cache=True)
        cache = branch(cache, torch.zeros(len(given), dtype=torch.long, device=model.device))
    width = max(map(len, given)) - shared
    pads = [width + shared - len(ids) for ids in given]
    input_ids = torch.tensor([[*[0] * pad, *ids[shared:]] for pad, ids in zip(pads, given, strict=True)])
    position_ids = torch.tensor([[*[0] * pad, *range(shared, len(ids))] for pad, ids in zip(pads, given, strict=True)])
    seen_BT = torch.tensor([[*[1] * shared, *[0] * pad, *[1] * (width - pad)] for pad in pads], device=model.device)
    hidden_BT = decoder(
        input_ids=input_ids.to(model.device),
        position_ids=position_ids.to(model.device),
        attention_mask=seen_BT if is_ragged else None,
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    return hidden_BT, cache, seen_BT


def _shared(given: Sequence[Sequence[int]], kept: Sequence[int]) -> int:
    """How many tokens all prompts begin with, short of those that are kept; 0 where reading them first doesn't pay."""
    if len(given) == 1:
        return 0
    most = min(len(ids) - count for ids, count in zip(given, kept, strict=True))
    common = sum(1 for _ in takewhile(lambda column: len({*column}) == 1, zip(*given, strict=False)))
    return min(common, most) if min(common, most) >= SHARED else 0


def _read_chunk(
    model: Any,
    rows: Sequence[Row],
    chunk: Sequence[Path],
    cache: DynamicCache,
    seen_BT: torch.Tensor,
    lengths: Sequence[int],
) -> torch.Tensor:
    """Hidden states (paths, T, width) behind copies of the cache; what a path lacks of T is padded on the right."""
    width = max(len(path.nodes) for path in chunk)
    which = torch.tensor([path.row for path in chunk], device=model.device)
    tokens = [[*_tokens(rows, path), *[0] * (width - len(path.nodes))] for path in chunk]
    positions = [[*range(lengths[path.row], lengths[path.row] + width)] for path in chunk]
    seen = torch.cat([seen_BT[which], seen_BT.new_ones(len(chunk), width)], dim=1)
    hidden_CT: torch.Tensor = (
        causal_lm(model)
        .get_decoder()(
            input_ids=torch.tensor(tokens, device=model.device),
            position_ids=torch.tensor(positions, device=model.device),
            attention_mask=None if bool(seen_BT.all()) else seen,
            past_key_values=branch(cache, which),
            use_cache=True,
        )
        .last_hidden_state
    )
    return hidden_CT


def branch(cache: DynamicCache, rows: torch.Tensor) -> DynamicCache:
    """A cache whose row n is a copy of row `rows[n]`; the given one stays as it is."""
    twin = copy.copy(cache)
    twin.layers = [_twin(layer) for layer in cache.layers]
    twin.reorder_cache(rows)
    return twin


def _twin(layer: Any) -> Any:
    """A layer's cache that may be written to without touching the other's; the tensors are still shared."""
    twin = copy.copy(layer)
    for name, value in vars(twin).items():
        if isinstance(value, dict):
            setattr(twin, name, dict(value))
    return twin


def _rows_at_once(cache: DynamicCache, num_rows: int, device: torch.device) -> int:
    """How many rows of the cache may be held at once."""
    held = [value for layer in cache.layers for value in vars(layer).values()]
    held += [entry for value in held if isinstance(value, dict) for entry in value.values()]
    size = sum(value.numel() * value.element_size() for value in held if isinstance(value, torch.Tensor))
    most = CPU_CACHE_BYTES if device.type == "cpu" else CACHE_BYTES
    return max(1, most * num_rows // max(1, size))


def _chunks(paths: Sequence[Path], max_tokens: int, max_rows: int) -> Iterator[Sequence[Path]]:
    """Paths of like length together, longest first."""
    ordered = sorted(paths, key=lambda path: -len(path.nodes))
    start = 0
    while start < len(ordered):
        count = max(1, min(max_rows, max_tokens // len(ordered[start].nodes)))
        yield ordered[start : start + count]
        start += count


def _spans(widths: Sequence[int], max_tokens: int) -> Iterator[tuple[int, int]]:
    """(first, behind the last) of neighbours that take at most `max_tokens` together, padding included."""
    start = 0
    for stop in range(1, len(widths) + 1):
        if stop == len(widths) or max(widths[start : stop + 1]) * (stop + 1 - start) > max_tokens:
            yield start, stop
            start = stop


def _tokens(rows: Sequence[Row], path: Path) -> list[int]:
    return [rows[path.row].trie.tokens[node] for node in path.nodes]


def _in_order(parts: Sequence[tuple[Sequence[int], torch.Tensor]]) -> torch.Tensor:
    """Hidden states by node, from -1 on, put together from pieces that name their nodes."""
    order = torch.tensor([node for nodes, _ in parts for node in nodes]).argsort()
    hidden = torch.cat([piece for _, piece in parts])
    return hidden[order.to(hidden.device)]
