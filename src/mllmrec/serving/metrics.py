"""What a server counts, for Prometheus: requests, their seconds, forward passes, tokens, and who waits."""

from __future__ import annotations

from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
QUESTIONS = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Metrics:
    """The figures of one server; each has a registry of its own."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    requests: Counter = field(init=False)
    seconds: Histogram = field(init=False)
    passes: Histogram = field(init=False)
    tokens: Counter = field(init=False)
    waiting: Gauge = field(init=False)

    def __post_init__(self) -> None:
        made = {
            "requests": Counter(
                "mllmrec_requests", "Requests that were answered.", ["route", "status"], registry=self.registry
            ),
            "seconds": Histogram(
                "mllmrec_request_seconds",
                "Seconds until an answer.",
                ["route"],
                buckets=SECONDS,
                registry=self.registry,
            ),
            "passes": Histogram(
                "mllmrec_questions_per_pass",
                "Questions that were scored together.",
                ["model"],
                buckets=QUESTIONS,
                registry=self.registry,
            ),
            "tokens": Counter("mllmrec_tokens", "Tokens that models read.", ["model"], registry=self.registry),
            "waiting": Gauge("mllmrec_waiting", "Questions at work or waiting.", registry=self.registry),
        }
        for name, metric in made.items():
            object.__setattr__(self, name, metric)

    def text(self) -> bytes:
        """All of it in the text format of Prometheus."""
        return generate_latest(self.registry)
