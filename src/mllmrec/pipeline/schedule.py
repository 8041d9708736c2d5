"""The order of a recipe's stages, one by one or side by side, their outcomes, and the time that the rest takes."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from mllmrec.pipeline.lanes import CtrlC, Ended, Entry, Event, Lanes
from mllmrec.progress import Board, Said, note
from mllmrec.records import Summary
from mllmrec.settings.base import StageSettings
from mllmrec.stages import tied
from mllmrec.storage.workspace import Workspace

TRAINING = ("sft", "grpo")
MEASURED = 60.0
"""Usual seconds of stages that a pace measured beforehand counts for."""


@dataclass(kw_only=True)
class Schedule:
    """The stages of one run, by index, and their outcomes so far.

    `usual` holds the seconds that stages take on some machine, by name or by verb, others a second; when it is empty no
    time is shown. `pace` is how much longer this machine takes, where that was measured beforehand.
    `command` is the command line that goes on with what is left. With one lane every stage waits for the one before it.
    Messages carry the stage's number when stages run `apart`, in processes of their own.
    """

    stages: Sequence[StageSettings]
    command: str
    usual: Mapping[str, float] = field(default_factory=dict)
    pace: float | None = None
    lanes: int = 1
    apart: bool = False
    summaries: dict[int, Summary] = field(default_factory=dict, init=False)
    seconds: dict[int, float] = field(default_factory=dict, init=False)
    errors: dict[int, BaseException] = field(default_factory=dict, init=False)
    interrupted: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.names = [f"{stage.verb}{_subject(stage)}" for stage in self.stages]
        self.waits = waits_for(self.stages)
        self._began: dict[int, float] = {}

    @property
    def failed(self) -> int | None:
        """The check that didn't pass, which is the last stage of its run."""
        return next((index for index, summary in self.summaries.items() if not summary.passed), None)

    @property
    def failures(self) -> list[int]:
        """The stages that failed, a check first and then in the order of their errors; not those interrupted."""
        check = [] if self.failed is None else [self.failed]
        return check + [index for index, error in self.errors.items() if not isinstance(error, KeyboardInterrupt)]

    @property
    def goes_on(self) -> bool:
        """Whether more stages may begin."""
        return not (self.interrupted or self.errors or self.failed is not None)

    def ready(self) -> int | None:
        """The first stage whose predecessors are all done; None when there is none."""
        left = [index for index in range(len(self.stages)) if index not in self._began]
        if self.lanes == 1:
            left = left[:1]
        return next((index for index in left if self.waits[index] <= self.summaries.keys()), None)

    def begin(self, index: int) -> StageSettings:
        """Announce a stage; returns its settings."""
        self._began[index] = time.monotonic()
        note(f"[{index + 1}/{len(self.stages)}] {self.names[index]}{self.time_left()}")
        return self.stages[index]

    def end(self, index: int, summary: Summary) -> None:
        """Keep and show the summary of a stage."""
        self.summaries[index], self.seconds[index] = summary, time.monotonic() - self._began[index]
        if summary.passed:
            for line in (summary.headline, *summary.warnings):
                note(f"{f'[{index + 1}]' if self.apart else '     '} {line}")

    def take(self, event: Ended | CtrlC) -> None:
        """Record an event of a lane."""
        if isinstance(event, CtrlC):
            self.interrupted = True
        elif isinstance(event.outcome, Summary):
            self.end(event.number - 1, event.outcome)
        else:
            self.errors[event.number - 1] = event.outcome

    def raise_error(self) -> None:
        """Raise the first error, or else Ctrl-C with the messages of the stages; nothing after a failed check."""
        failed = [index for index in self.failures if index in self.errors]
        for index in failed if self.failed is not None else failed[1:]:
            note(f"[{index + 1}] failed as well: {self.errors[index]}")
        if self.failed is not None or self.goes_on:
            return
        messages = [f"[{index + 1}] {error}" for index, error in self.errors.items() if str(error)]
        error = self.errors[failed[0]] if failed else KeyboardInterrupt("; ".join(messages))
        if stopped := failed[:1] or self.errors:
            error.add_note(self.how_to_go_on(stopped))
        raise error

    def how_to_go_on(self, indices: Collection[int]) -> str:
        """The note that an error carries: its stages and the command that goes on."""
        return f"{self.which(indices)}; `{self.command}` goes on with it."

    def which(self, indices: Collection[int]) -> str:
        """`This was stage 2 of 3, sft sft`."""
        stages = [f"stage {index + 1} of {len(self.stages)}, {self.names[index]}" for index in sorted(indices)]
        return f"{'This was' if len(stages) == 1 else 'These were'} {', and '.join(stages)}"

    def time_left(self) -> str:
        """`, about 3 min left`, at the pace of the stages so far; those that were finished before don't count.

        Short stages say little of how fast a machine trains: where its pace wasn't measured, it is `at least` until a
        stage that trains was timed.
        """
        if not self.usual:
            return ""
        usual = [self.usual.get(name, self.usual.get(name.split()[0], 1.0)) for name in self.names]
        timed = {index: seconds for index, seconds in self.seconds.items() if seconds > usual[index] / 4}
        pace = self._pace({index: (usual[index], seconds) for index, seconds in timed.items()})
        now = time.monotonic()
        running = {index: now - began for index, began in self._began.items() if index not in self.seconds}
        left = {
            index: max(pace * usual[index] - running.get(index, 0.0), 0.0)
            for index in range(len(usual))
            if index not in self.seconds
        }
        seconds = time_needed(left, self.waits, self.lanes, under_way=running)
        training = [index for index, stage in enumerate(self.stages) if stage.verb in TRAINING]
        is_rough = self.pace is None and not timed.keys() & set(training) and any(index in left for index in training)
        amount = f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s"
        return f", {'at least' if is_rough else 'about'} {amount} left"

    def _pace(self, timed: Mapping[int, tuple[float, float]]) -> float:
        """Seconds here for a usual second, from (usual, taken) of stages and the pace that was measured beforehand."""
        weight = MEASURED if self.pace is not None else 0.0
        usual = weight + sum(expected for expected, _ in timed.values())
        taken = weight * (self.pace or 0.0) + sum(seconds for _, seconds in timed.values())
        return taken / usual if usual else 1.0


def one_by_one(schedule: Schedule, entry: Entry) -> None:
    """Carry stages out in this process, one after the other, up to a check that fails."""
    while schedule.failed is None and (index := schedule.ready()) is not None:
        try:
            stage = schedule.begin(index)
            schedule.end(index, entry(stage.verb)(stage, Workspace(stage.root)))
        except (Exception, KeyboardInterrupt) as error:
            error.add_note(schedule.how_to_go_on([index]))
            raise


def side_by_side(schedule: Schedule, entry: Entry, threads: int) -> None:
    """Carry stages out in lanes of `threads` threads each, up to a check or a stage that fails, or Ctrl-C.

    The stages under way are then interrupted and waited for, so that each saves what it has.
    """
    with Board() as board, Lanes(schedule.lanes, threads) as lanes:

        def take(event: Event) -> None:
            if isinstance(event, Said):
                board.show(event)
            else:
                schedule.take(event)

        while schedule.goes_on:
            while lanes.free and (index := schedule.ready()) is not None:
                lanes.begin(index + 1, entry, schedule.begin(index))
            if not lanes.busy:
                return
            for event in lanes.events():
                take(event)
        if lanes.busy and schedule.failures:
            note(f"{schedule.which(schedule.failures)}; what runs beside it is stopped.")
        lanes.stop(take)
    schedule.raise_error()


def waits_for(stages: Sequence[StageSettings]) -> list[frozenset[int]]:
    """For each stage the indices of the earlier ones that have to be done before it begins."""
    return [frozenset(i for i in range(number) if tied(stages[i], stage)) for number, stage in enumerate(stages)]


def time_needed(
    left: Mapping[int, float], waits: Sequence[Collection[int]], lanes: int, *, under_way: Collection[int] = ()
) -> float:
    """The seconds until all stages are done, each begun, in order, once a lane is free and its predecessors are done.

    `left` maps a stage to the seconds that it still takes; those `under_way` have begun.

    >>> waits = [(), (0,), (0,), (1, 2)]
    >>> [time_needed({0: 1, 1: 5, 2: 3, 3: 1}, waits, lanes) for lanes in (1, 2)]
    [10.0, 7.0]
    >>> time_needed({1: 2, 2: 3, 3: 1}, waits, 2, under_way=[1])
    4.0
    """
    clock, ends = 0.0, {index: left[index] for index in under_way}
    waiting = [index for index in left if index not in ends]
    while waiting or ends:
        for index in list(waiting):
            if len(ends) < lanes and not any(other in ends or other in waiting for other in waits[index]):
                waiting.remove(index)
                ends[index] = clock + left[index]
        clock = min(ends.values())
        ends = {index: end for index, end in ends.items() if end > clock}
    return clock


def _subject(stage: StageSettings) -> str:
    names = [getattr(stage, field, "") for field in ("tag", "sft_tag", "out", "backbone")]
    words = [next(filter(None, names), ""), getattr(stage, "shard", "")]
    return "".join(f" {word}" for word in words if word)
