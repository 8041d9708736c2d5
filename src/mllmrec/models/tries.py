"""The answers of one prompt as a tree, and prompts with their trees put into batches of like length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mllmrec.models.base import ScoringTask, Tokens


@dataclass(frozen=True, kw_only=True)
class Trie:
    """The answers of one prompt as a tree.

    Node n (0-based) has `tokens[n]` and `parents[n]`, -1 standing for the end of the prompt. Edge e predicts token
    `targets[e]` after node `sources[e]`. `paths[c]` lists the edges of answer c. Only nodes that something follows
    are nodes; an end token is only an edge.
    """

    tokens: list[int]
    parents: list[int]
    depths: list[int]
    sources: list[int]
    targets: list[int]
    paths: list[list[int]]

    def ancestors(self) -> NDArray[np.bool_]:
        """(nodes, nodes): which nodes a node may see, itself and those above it."""
        seen = np.eye(len(self.tokens), dtype=bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                seen[node] |= seen[parent]
        return seen


def build_trie(answers_C: Sequence[Tokens]) -> Trie:
    """The trie of the answers; each needs at least one token."""
    trie = Trie(tokens=[], parents=[], depths=[], sources=[], targets=[], paths=[])
    edges: dict[tuple[int, int], int] = {}
    nodes: dict[tuple[int, int], int] = {}
    for answer in answers_C:
        node, path = -1, []
        for depth, token in enumerate(answer):
            if depth:
                key = (node, answer[depth - 1])
                if key not in nodes:
                    nodes[key] = len(trie.tokens)
                    trie.tokens.append(answer[depth - 1])
                    trie.parents.append(node)
                    trie.depths.append(depth - 1)
                node = nodes[key]
            edge = edges.setdefault((node, token), len(edges))
            if edge == len(trie.targets):
                trie.sources.append(node)
                trie.targets.append(token)
            path.append(edge)
        trie.paths.append(path)
    return trie


@dataclass(frozen=True, kw_only=True)
class Row:
    """One task, ready to be put into a batch."""

    index: int
    prompt_T: Tokens
    trie: Trie

    @property
    def num_tokens(self) -> int:
        return len(self.prompt_T) + len(self.trie.tokens)


def make_rows(tasks: Sequence[ScoringTask]) -> list[Row]:
    return [Row(index=i, prompt_T=task.prompt_T, trie=build_trie(task.answers_C)) for i, task in enumerate(tasks)]


def plan_batches(rows: Sequence[Row], max_tokens: int) -> list[list[Row]]:
    """Batches of rows of like length, longest first, each of at most `max_tokens` tokens with padding."""
    batches: list[list[Row]] = []
    for row in sorted(rows, key=lambda row: (-row.num_tokens, row.index)):
        if batches and (len(batches[-1]) + 1) * batches[-1][0].num_tokens <= max_tokens:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches
