"""`mllmrec serve` under load: what sharing forward passes brings, whether answers are right, and its memory.

    OMP_NUM_THREADS=1 python benchmarks/serving.py --root WORKSPACE --dataset NAME --tag CHECKPOINT
    OMP_NUM_THREADS=1 python benchmarks/serving.py --root WORKSPACE --dataset NAME --tag CHECKPOINT --minutes 5

Two servers stand side by side, one whose questions share passes and one whose questions don't, asked in turns by
1, 8 and 64 clients, each with one request at a time, so that the ratios don't hang on what else the machine does. Every
answer is held against the scores of the same questions asked from Python: order, items, and log-probabilities within
1e-3 nats. With --minutes the first server is asked by 64 clients for so long, and its memory is told.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from mllmrec import Recommender
from mllmrec.data.candidates.drawing import read_candidates
from mllmrec.records import RankingExample
from mllmrec.serving.answers import Question

CLIENTS = (1, 8, 64)
WAYS = ("--batching", "--no-batching")
NATS = 1e-3
LOAD_SECONDS = 300


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server that runs."""

    process: subprocess.Popen[bytes]
    address: str

    @property
    def megabytes(self) -> float:
        """The memory of the process that is in use, in MB."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE") / 1e6

    def questions_per_pass(self) -> float:
        """The mean number of questions that shared a forward pass."""
        text = httpx2.get(f"{self.address}/metrics", trust_env=False, timeout=60).text
        figures = dict(re.findall(r"^mllmrec_questions_per_pass_(sum|count)\{.*\} (\S+)$", text, re.MULTILINE))
        return float(figures["sum"]) / float(figures["count"])


@contextmanager
def serving(options: argparse.Namespace, way: str) -> Iterator[Server]:
    """A server of the model, as soon as it is ready."""
    words = ["--root", options.root, "--dataset", options.dataset, "--tag", options.tag, "--device", "cpu"]
    command = [sys.executable, "-m", "mllmrec", "serve", "--port", "0", "--max-waiting", "128", way, *words]
    with tempfile.NamedTemporaryFile() as told, subprocess.Popen(command, stderr=told) as process:
        try:
            end = time.monotonic() + LOAD_SECONDS
            while not (found := re.search(rb"http://\S+", Path(told.name).read_bytes())):
                assert time.monotonic() < end, Path(told.name).read_text()
                time.sleep(0.1)
            address = found[0].decode()
            while httpx2.get(f"{address}/readyz", trust_env=False).status_code != 200:
                assert time.monotonic() < end, Path(told.name).read_text()
                time.sleep(0.2)
            yield Server(process=process, address=address)
        finally:
            process.terminate()


def expected_scores(options: argparse.Namespace) -> tuple[list[RankingExample], list[tuple[float, ...]]]:
    """The questions, and the scores that they get from Python."""
    recommender = Recommender.load(options.root, options.dataset, options.tag, device="cpu")
    window = recommender.window
    path = next((Path(options.root) / "data" / options.dataset / "processed").glob(f"test_uni9_w{window}_*.jsonl"))
    examples = read_candidates(path)[: options.questions]
    asked = [Question(history=example.history, candidates=example.candidates) for example in examples]
    return examples, [scores.log_probabilities for scores in recommender.score(asked)]


def check(example: RankingExample, scores: Sequence[float], answer: dict[str, Any]) -> None:
    """Raise AssertionError where an answer isn't that of its question."""
    items = sorted(answer["items"], key=lambda item: int(item["index"]))
    assert [item["item_id"] for item in items] == list(example.candidates), example.example_id
    off = max(abs(item["log_probability"] - score) for item, score in zip(items, scores, strict=True))
    assert off < NATS, f"{example.example_id}: {off} nats"
    found = [item["log_probability"] for item in answer["items"]]
    assert found == sorted(found, reverse=True), example.example_id


async def ask(
    server: Server,
    clients: int,
    known: tuple[list[RankingExample], list[tuple[float, ...]]],
    *,
    requests: int = 0,
    seconds: float = 0,
) -> list[float]:
    """Seconds of each request: of so many in all, or of as many as go into some time; all are checked."""
    examples, scores = known
    end, left, taken = time.monotonic() + seconds, iter(range(requests)), list[float]()
    numbers = left if requests else iter(int, 1)

    async def client(first: int, http: httpx2.AsyncClient) -> None:
        for step, _ in enumerate(numbers):
            if seconds and time.monotonic() > end:
                return
            row = (first * 37 + step * 11) % len(examples)
            body = {"history": examples[row].history, "candidates": examples[row].candidates}
            started = time.perf_counter()
            answer = await http.post(f"{server.address}/v1/rank", json=body)
            taken.append(time.perf_counter() - started)
            assert answer.status_code == 200, answer.text
            check(examples[row], scores[row], answer.json())

    limits = httpx2.Limits(max_connections=clients)
    async with httpx2.AsyncClient(timeout=120, trust_env=False, limits=limits) as http:
        await asyncio.gather(*(client(number, http) for number in range(clients)))
    return taken


def quantiles(taken: Sequence[float]) -> str:
    """p50, p95 and p99 in milliseconds."""
    cuts = statistics.quantiles(taken, n=100, method="inclusive")
    return " / ".join(f"{cuts[part - 1] * 1000:,.0f}" for part in (50, 95, 99))


def compare(options: argparse.Namespace, known: tuple[list[RankingExample], list[tuple[float, ...]]]) -> None:
    """The table: both ways, by the number of clients, in rounds that take turns."""
    print("| clients | way | requests/s | p50 / p95 / p99, ms | questions a pass so far |\n|---|---|---|---|---|")
    count = 0
    with ExitStack() as stack:
        servers = {way: stack.enter_context(serving(options, way)) for way in WAYS}
        for server in servers.values():
            asyncio.run(ask(server, 4, known, requests=20))
        for clients in CLIENTS:
            rates: dict[str, list[float]] = {way: [] for way in WAYS}
            seconds: dict[str, list[float]] = {way: [] for way in WAYS}
            for _ in range(options.rounds):
                for way, server in servers.items():
                    requests = options.requests // (2 * options.rounds * len(CLIENTS))
                    started = time.perf_counter()
                    seconds[way] += asyncio.run(ask(server, clients, known, requests=requests))
                    rates[way].append(requests / (time.perf_counter() - started))
            count += sum(map(len, seconds.values()))
            for way, server in servers.items():
                rate = statistics.median(rates[way])
                cells = (clients, way, f"{rate:.1f}", quantiles(seconds[way]), f"{server.questions_per_pass():.1f}")
                print("|", " | ".join(map(str, cells)), "|", flush=True)
            ratios = [shared / alone for shared, alone in zip(*rates.values(), strict=True)]
            print(f"{clients} clients: {' '.join(f'{ratio:.2f}' for ratio in ratios)} times as many a second, by round")
    print(f"{count:,} answers, each checked: none lost, none another's.")


def hold(options: argparse.Namespace, known: tuple[list[RankingExample], list[tuple[float, ...]]]) -> None:
    """The memory of a server over some minutes of load."""
    with serving(options, WAYS[0]) as server:
        asyncio.run(ask(server, CLIENTS[-1], known, seconds=10))
        part, count = options.minutes * 60 / 10, 0
        print(f"{server.megabytes:.0f} MB after ten seconds of load", flush=True)
        for number in range(1, 11):
            count += len(asyncio.run(ask(server, CLIENTS[-1], known, seconds=part)))
            print(f"{number * part:.0f} s: {server.megabytes:.0f} MB, {count:,} answers", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default=".")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--tag", required=True)
    parser.add_argument("--requests", type=int, default=10_000, help="in all")
    parser.add_argument("--questions", type=int, default=300, help="different questions")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=0)
    options = parser.parse_args()
    known = expected_scores(options)
    if options.minutes:
        hold(options, known)
    else:
        compare(options, known)


if __name__ == "__main__":
    main()
