"""Ranking after thoughts: N are sampled for each user, and the candidates' shares are averaged over them.

    q_nc = exp(s_nc) / sum of exp(s_nc) over the candidates,    s_nc the score of candidate c behind thought n
    score of candidate c = log( mean of q_nc over the thoughts )

A thought's numbers are drawn from (seed, example id, number of the thought). What was thought lies in the RUN, and a
thought is read as its text alone, so that its scores can be computed again.

    thoughts.jsonl    a line for each user and thought: number (from 1), text, tokens, finished
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mllmrec.data.draws import generator
from mllmrec.evaluation.ranking.runs import THOUGHTS
from mllmrec.models.base import ScoringTask
from mllmrec.models.chat import Encoder
from mllmrec.models.ranker import Ranker
from mllmrec.records import RankingExample
from mllmrec.settings.evaluation import EvaluateSettings
from mllmrec.storage.workspace import read_jsonl, write_jsonl


def rank_after_thoughts(
    settings: EvaluateSettings, ranker: Ranker, examples: Sequence[RankingExample], encoder: Encoder | None = None
) -> list[dict[str, Any]]:
    """A row for each example: {scores, tokens} as without thoughts, {thoughts, thought_seconds} besides.

    `encoder` writes the prompts, in place of the ranker's own.
    """
    encoder, count = encoder or ranker.encoder, settings.thoughts
    rows, tasks = list[dict[str, Any]](), list[ScoringTask]()
    for start in range(0, len(examples), settings.batch):
        batch, begun = examples[start : start + settings.batch], time.monotonic()
        prompts = [encoder.thinking_prompt_ids(example) for example in batch]
        thoughts_BN = ranker.thinker.think(
            prompts,
            [[numbers(settings.seed, example, number) for number in range(1, count + 1)] for example in batch],
            max_tokens=settings.max_thought_tokens,
            temperature=settings.thought_temperature,
        )
        seconds = (time.monotonic() - begun) / len(batch)
        for example, prompt, thoughts in zip(batch, prompts, thoughts_BN, strict=True):
            answers = encoder.scored_answers(example, settings.score)
            tasks += [
                ScoringTask(prompt_T=[*prompt, *encoder.chat.thought_ids(thought.text)], answers_C=answers)
                for thought in thoughts
            ]
            rows.append(
                {
                    "tokens": [len(answer) for answer in answers],
                    "thoughts": [asdict(thought) for thought in thoughts],
                    "thought_seconds": seconds,
                }
            )
    scores = dict(ranker.scorer.score(tasks))
    return [
        {"scores": averaged([scores[index * count + number] for number in range(count)]), **row}
        for index, row in enumerate(rows)
    ]


def numbers(seed: int, example: RankingExample, number: int) -> Iterator[float]:
    """The numbers in [0, 1) by which one thought of an example is drawn."""
    draw = generator(seed, "thought", f"{example.example_id}/{number}").random
    return iter(draw, None)


def averaged(scores_NC: Sequence[Sequence[float]]) -> list[float]:
    """The logarithm of each candidate's share, averaged over the thoughts.

    >>> import math
    >>> shares = [[0.2, 0.8], [0.6, 0.4]]
    >>> found = averaged([[math.log(share) - 7 for share in row] for row in shares])
    >>> [round(math.exp(score), 6) for score in found]
    [0.4, 0.6]
    """
    logq_NC = [[score - log_sum_exp(scores_C) for score in scores_C] for scores_C in scores_NC]
    return [log_sum_exp(column) - math.log(len(logq_NC)) for column in zip(*logq_NC, strict=True)]


def log_sum_exp(values: Sequence[float]) -> float:
    """log of the sum of exp(values).

    >>> round(log_sum_exp([-1000.0, -1000.0]) + 1000, 6)
    0.693147
    """
    highest = max(values)
    return highest + math.log(math.fsum(math.exp(value - highest) for value in values))


def thought_figures(rows: Iterable[Mapping[str, Any]], number: int, world_size: int) -> dict[str, Any]:
    """What metrics.json and the manifest tell of a RUN's thoughts."""
    tokens = unfinished = 0
    seconds = 0.0
    for row in rows:
        seconds += row["thought_seconds"]
        tokens += sum(thought["tokens"] for thought in row["thoughts"])
        unfinished += sum(not thought["finished"] for thought in row["thoughts"])
    return {"number": number, "tokens": tokens, "unfinished": unfinished, "seconds": round(seconds / world_size, 3)}


def write_thoughts(folder: Path, pairs: Iterable[tuple[RankingExample, Mapping[str, Any]]]) -> None:
    """Write thoughts.jsonl from examples and their rows."""
    write_jsonl(
        folder / THOUGHTS,
        (
            {"example_id": example.example_id, "user_id": example.user_id, "number": number, **thought}
            for example, row in pairs
            for number, thought in enumerate(row["thoughts"], 1)
        ),
    )


def read_thoughts(folder: Path, keys: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    """The thoughts of some examples by id; empty for a RUN without thoughts."""
    path, wanted = folder / THOUGHTS, set(keys)
    found: dict[str, list[dict[str, Any]]] = {}
    for row in read_jsonl(path) if path.exists() else ():
        if row["example_id"] in wanted:
            found.setdefault(row["example_id"], []).append(row)
    return found
