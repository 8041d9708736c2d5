"""Does our way of fitting and scoring reach what is published? SASRec on MovieLens-1M, as its paper evaluates it.

    python benchmarks/external/sasrec_ml1m.py FOLDER/ml-1m.txt.gz --minutes 60
    python benchmarks/external/sasrec_ml1m.py FOLDER/ml-1m.txt.gz --minutes 60 --maxlen 50 --pieces

The file holds `user item` lines in the order of time (SASRec's own preprocessing; plain or gzipped). Of every user the
last item is the test target, the one before it the validation target, the rest is trained on; a target is ranked among
100 items drawn uniformly from those the user never met, from all that the user chose before it. Published (Kang and
McAuley, ICDM 2018): NDCG@10 .59, HR@10 .82, with d = 50, at most 200 items, two blocks, one head, dropout .2, Adam at
.001 and binary cross-entropy with one negative a place. The second command is for a processor:
sessions of 50 items, but all of a user's, which is almost four times as many updates a round in less time. The
round that is best on validation is the one that is tested.
"""

from __future__ import annotations

import argparse
import gzip
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mllmrec.data.draws import generator
from mllmrec.data.sequences import Line
from mllmrec.evaluation.baselines.base import Baseline
from mllmrec.evaluation.baselines.sequential import SasRec
from mllmrec.evaluation.metrics import means, per_user
from mllmrec.evaluation.ranking.rankings import position_of, ranking_of
from mllmrec.records import RankingExample, Split, example_id

METRICS = ("NDCG@10", "HR@10")
PAPER = {"n_factors": 50, "n_blocks": 2, "n_heads": 1, "dropout_rate": 0.2, "lr": 1e-3}
LOSSES: dict[str, dict[str, Any]] = {"BCE": {"loss": "BCE", "n_negatives": 1}, "softmax": {"loss": "softmax"}}


class Clock:
    """The judge of every round: validation every few rounds, and the end of learning when the time is up."""

    def __init__(self, valid: Sequence[RankingExample], test: Sequence[RankingExample], every: int, minutes: float):
        self.valid, self.test, self.every = valid, test, every
        self.started, self.ends = time.monotonic(), time.monotonic() + 60 * minutes
        self.rounds, self.best, self.tested = 0, 0.0, (0, [0.0, 0.0])

    def __call__(self, baseline: Baseline) -> float:
        self.rounds += 1
        if time.monotonic() > self.ends:
            raise TimeoutError
        if self.rounds % self.every:
            return self.best
        value, hits = measured(baseline, self.valid)
        minutes = (time.monotonic() - self.started) / 60
        line = f"round {self.rounds:4} {minutes:6.1f} min  valid NDCG@10 {value:.4f} HR@10 {hits:.4f}"
        if value > self.best:
            self.best = value
            self.tested = (self.rounds, measured(baseline, self.test))
            line += "  test NDCG@10 {:.4f} HR@10 {:.4f}".format(*self.tested[1])
        print(line, flush=True)
        return value


def measured(baseline: Baseline, examples: Sequence[RankingExample]) -> list[float]:
    lists = zip(examples, baseline.score_lists(examples), strict=True)
    return means(per_user([position_of(ranking_of(example, scores)) for example, scores in lists], METRICS))


def read(path: Path) -> dict[str, list[str]]:
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    users: dict[str, list[str]] = {}
    for line in text.splitlines():
        user, item = line.split()
        users.setdefault(user, []).append(item)
    return users


def questions(users: dict[str, list[str]], split: Split, back: int, limit: int) -> list[RankingExample]:
    """The target `back` places from the end, among 100 that the user never met."""
    pool = sorted({item for items in users.values() for item in items}, key=int)
    chosen = random.Random(0).sample(sorted(users), min(limit, len(users)))
    return [_question(user, users[user], split, back, pool) for user in sorted(chosen, key=int)]


def _question(user: str, items: list[str], split: Split, back: int, pool: Sequence[str]) -> RankingExample:
    history, target, met = items[:-back], items[-back], set(items)
    rng = generator(42, f"external/{split}", user)
    negatives = rng.sample([item for item in pool if item not in met], 100)
    return RankingExample(
        example_id=example_id(user, target, history),
        user_id=user,
        history=tuple(history),
        candidates=(target, *negatives),
        target_id=target,
        split=split,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="ml-1m.txt or ml-1m.txt.gz")
    parser.add_argument("--loss", choices=LOSSES, default="BCE", help="the paper's is BCE")
    parser.add_argument("--maxlen", type=int, default=200, help="items in a session")
    parser.add_argument("--pieces", action="store_true", help="learn from whole lines, cut into sessions")
    parser.add_argument("--minutes", type=float, default=60, help="when to stop")
    parser.add_argument("--rounds", type=int, default=1000, help="how many rounds to learn at most")
    parser.add_argument("--every", type=int, default=5, help="validate every so many rounds")
    parser.add_argument("--users", type=int, default=10_000, help="validate on a sample of users; test is all of them")
    parser.add_argument("--seed", type=int, default=42)
    args = parser.parse_args()
    users = read(args.path)
    assert min(map(len, users.values())) >= 3
    # In the paper a user gives one session, the last 200 items and their targets.
    first = 0 if args.pieces else -args.maxlen - 1
    lines = [
        Line(user_id=user, items=tuple(items[:-2][first:]), line_index=index)
        for index, (user, items) in enumerate(users.items())
    ]
    clock = Clock(
        questions(users, "valid", 2, args.users), questions(users, "test", 1, 10_000), args.every, args.minutes
    )
    limits: dict[str, Any] = {"max_epochs": args.rounds, "patience": args.rounds, "session_max_len": args.maxlen}
    baseline = SasRec({**PAPER, **LOSSES[args.loss], **limits}, args.seed)
    print(f"{len(users)} users, loss {args.loss}, seed {args.seed}", flush=True)
    try:
        baseline.fit_judged(lines, clock)
    except TimeoutError:
        print("The time is up.")
    rounds, (ndcg, hits) = clock.tested
    minutes = (time.monotonic() - clock.started) / 60
    print(f"{clock.rounds} rounds in {minutes:.1f} minutes; best on validation: round {rounds}")
    print(f"test, {len(clock.test)} users: NDCG@10 {ndcg:.4f} (published .59), HR@10 {hits:.4f} (published .82)")


if __name__ == "__main__":
    main()
