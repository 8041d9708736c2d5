"""The artifact of `mllmrec assess`: every trace with its scores, its confidence and whether it is kept.

The scores are stored and the choice is made of them, so that it can be made again. Rows are read one at a time, once to
collect what decides and once to be written; only a few numbers of each are held.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllmrec.reasoning.confidence import LESS_TRUSTED, Choice, Parts, Verdict, decide, ranking, with_predictions
from mllmrec.reasoning.repetition import find_repeats
from mllmrec.streams import read_list, write_list

REPEATS = "repeats another trace"
Row = dict[str, Any]
Rows = Iterator[tuple[str, Row]]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The parts and the verdict of every trace, by example id."""

    parts: Mapping[str, Parts]
    verdicts: Mapping[str, Verdict]

    def counts(self) -> dict[str, Any]:
        """How many are kept, and how many aren't for which reason."""
        reasons = Counter(verdict.reason for verdict in self.verdicts.values() if verdict.reason is not None)
        return {
            "kept": sum(verdict.keep for verdict in self.verdicts.values()),
            "left_out": dict(reasons.most_common()),
        }


def write_verdicts(path: Path, rows: Callable[[], Rows], choice: Choice) -> Outcome:
    """Find repetitions, decide, and write the artifact; `rows` reads the assessed rows as often as it is asked.

    Of traces that say the same the most trusted stays: whose history they are about, where that can be told.
    """
    parts = {key: _parts(row) for key, row in rows()}
    texts = ((key, row["reasoning"]) for key, row in rows() if row["reason"] is None)
    repeats = find_repeats(texts, ranking(with_predictions(parts), choice.seed))
    parts |= {key: parts[key]._replace(reason=REPEATS) for key in repeats}
    outcome = Outcome(parts=parts, verdicts=decide(parts, choice))
    write_list(path, (_decided(row, outcome.verdicts[key], repeats.get(key)) for key, row in rows()))
    return outcome


def decide_again(path: Path, choice: Choice) -> tuple[Outcome, bool]:
    """Another choice from the stored scores; and whether it differs from the one that was stored."""
    parts, stored = dict[str, Parts](), dict[str, tuple[Any, ...]]()
    for row in read_list(path):
        key = row["example_id"]
        parts[key] = _parts(row)
        stored[key] = (row["scores"]["prediction"], row["confidence"], row["keep"], row["reason"])
    outcome = Outcome(parts=parts, verdicts=decide(parts, choice))
    changed = any(tuple(outcome.verdicts[key]) != before for key, before in stored.items())
    return outcome, changed


def stored_rows(path: Path) -> Rows:
    """The rows of a finished artifact as they were before anything was decided."""
    for row in read_list(path):
        reason = row["reason"] if row["reason"] not in (LESS_TRUSTED, REPEATS) else None
        scores = {name: value for name, value in row["scores"].items() if name not in ("prediction", "repeats")}
        kept = {name: value for name, value in row.items() if name not in ("scores", "confidence", "keep", "reason")}
        yield row["example_id"], {**kept, "scores": scores, "reason": reason}


def _parts(row: Row) -> Parts:
    names = ("modality", "modality_margin", "lift", "lift_error", "steps", "length")
    reason = row["reason"] if row["reason"] != LESS_TRUSTED else None
    return Parts(**{name: row["scores"][name] for name in names}, reason=reason)


def _decided(row: Row, verdict: Verdict, repeats: str | None) -> Row:
    kept = {name: value for name, value in row.items() if name not in ("scores", "confidence", "keep", "reason")}
    return {
        **kept,
        "scores": {**row["scores"], "prediction": verdict.prediction, "repeats": repeats},
        "confidence": verdict.confidence,
        "keep": verdict.keep,
        "reason": verdict.reason,
    }
