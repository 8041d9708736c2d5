"""In what order the stages of a recipe are carried out, one by one or side by side, and how long the rest takes."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from mllmrec.pipeline.lanes import CtrlC, Ended, Entry, Lanes
from mllmrec.progress import Board, Said, note
from mllmrec.records import Summary
from mllmrec.settings.base import StageSettings
from mllmrec.stages import tied
from mllmrec.storage.workspace import Workspace


@dataclass(kw_only=True)
class Schedule:
    """The stages of one run, by index, and what became of them.

    `usual` holds the seconds that stages take somewhere, by name or by verb, others a second; it is empty when no time
    is told. `command` is the command line that goes on with what is left. With one lane every stage waits for the one
    before it. What is told carries the stage's number when stages run `apart`, in processes of their own.
    """

    stages: Sequence[StageSettings]
    command: str
    usual: Mapping[str, float] = field(default_factory=dict)
    lanes: int = 1
    apart: bool = False
    summaries: dict[int, Summary] = field(default_factory=dict, init=False)
    seconds: dict[int, float] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.names = [f"{stage.verb}{_subject(stage)}" for stage in self.stages]
        self.waits = waits_for(self.stages)
        self._began: dict[int, float] = {}

    @property
    def failed(self) -> int | None:
        """The check that didn't pass, which is the last stage of its run."""
        return next((index for index, summary in self.summaries.items() if not summary.passed), None)

    def ready(self) -> int | None:
        """The first stage that nothing stands in the way of any more; None when there is none."""
        left = [index for index in range(len(self.stages)) if index not in self._began]
        if self.lanes == 1:
            left = left[:1]
        return next((index for index in left if self.waits[index] <= self.summaries.keys()), None)

    def begin(self, index: int) -> StageSettings:
        """Announce a stage, and give its settings as they are for a run that may go on with an earlier one."""
        self._began[index] = time.monotonic()
        note(f"[{index + 1}/{len(self.stages)}] {self.names[index]}{self.time_left()}")
        stage = self.stages[index]
        return stage.model_copy(update={"resume": True}) if "resume" in type(stage).model_fields else stage

    def end(self, index: int, summary: Summary) -> None:
        """Keep what a stage brought, and tell it."""
        self.summaries[index], self.seconds[index] = summary, time.monotonic() - self._began[index]
        if summary.passed:
            for told in (summary.headline, *summary.warnings):
                note(f"{f'[{index + 1}]' if self.apart else '     '} {told}")

    def places(self, indices: Collection[int]) -> str:
        """`This was stage 2 of 3, sft sft`: what an error or an interrupted run says of its stages."""
        told = [f"stage {index + 1} of {len(self.stages)}, {self.names[index]}" for index in sorted(indices)]
        return f"{'This was' if len(told) == 1 else 'These were'} {', and '.join(told)}"

    def time_left(self) -> str:
        """`, about 3 min left`, at the pace so far; stages that were finished before tell nothing of it."""
        if not self.usual:
            return ""
        usual = [self.usual.get(name, self.usual.get(name.split()[0], 1.0)) for name in self.names]
        ran = [(usual[index], taken) for index, taken in self.seconds.items() if taken > usual[index] / 4]
        pace = sum(taken for _, taken in ran) / sum(usually for usually, _ in ran) if ran else 1.0
        now = time.monotonic()
        running = {index: now - began for index, began in self._began.items() if index not in self.seconds}
        left = {
            index: max(pace * usual[index] - running.get(index, 0.0), 0.0)
            for index in range(len(usual))
            if index not in self.seconds
        }
        seconds = time_needed(left, self.waits, self.lanes, under_way=running)
        return f", about {seconds / 60:.0f} min left" if seconds > 90 else f", about {seconds:.0f} s left"


def time_needed(
    left: Mapping[int, float], waits: Sequence[Collection[int]], lanes: int, *, under_way: Collection[int] = ()
) -> float:
    """How long stages take that are each begun, in order, once a lane is free and none that they wait for is `left`.

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


def one_by_one(schedule: Schedule, entry: Entry) -> None:
    """Carry stages out in this process, one after the other, up to a check that fails."""
    while schedule.failed is None and (index := schedule.ready()) is not None:
        try:
            stage = schedule.begin(index)
            schedule.end(index, entry(stage.verb)(stage, Workspace(stage.root)))
        except (Exception, KeyboardInterrupt) as error:
            error.add_note(f"{schedule.places([index])}; `{schedule.command}` goes on with it.")
            raise


def side_by_side(schedule: Schedule, entry: Entry, threads: int) -> None:
    """Carry stages out in lanes of `threads` threads each, up to a check or a stage that fails, or Ctrl-C.

    What is under way then is interrupted and waited for: it keeps what it has.
    """
    with Board() as board, Lanes(schedule.lanes, threads) as lanes:
        course = _Course(schedule, board)
        while course.goes_on:
            while lanes.free and (index := schedule.ready()) is not None:
                lanes.begin(index + 1, entry, schedule.begin(index))
            if not lanes.busy:
                return
            for heard in lanes.listen():
                course.take(heard)
        if lanes.busy and course.failed:
            note(f"{schedule.places(course.failed)}; what runs beside it is stopped.")
        lanes.stop(course.take)
    course.finish()


class _Course:
    """What is heard of the stages under way, and whether more of them may begin."""

    def __init__(self, schedule: Schedule, board: Board) -> None:
        self.schedule, self.board = schedule, board
        self.errors: dict[int, BaseException] = {}
        self.interrupted = False

    @property
    def failed(self) -> list[int]:
        """The stages that failed by themselves, the first one first."""
        check = [] if self.schedule.failed is None else [self.schedule.failed]
        return check + [index for index, error in self.errors.items() if not isinstance(error, KeyboardInterrupt)]

    @property
    def goes_on(self) -> bool:
        return not (self.interrupted or self.errors or self.schedule.failed is not None)

    def take(self, heard: Said | Ended | CtrlC) -> None:
        if isinstance(heard, Said):
            self.board.show(heard)
        elif isinstance(heard, CtrlC):
            self.interrupted = True
        elif isinstance(heard.outcome, Summary):
            self.schedule.end(heard.number - 1, heard.outcome)
        else:
            self.errors[heard.number - 1] = heard.outcome

    def finish(self) -> None:
        """Raise the first error, or else Ctrl-C with what stages say of it; a check that failed comes before both."""
        failed = [index for index in self.failed if index in self.errors]
        for index in failed if self.schedule.failed is not None else failed[1:]:
            note(f"[{index + 1}] failed as well: {self.errors[index]}")
        if self.schedule.failed is not None or self.goes_on:
            return
        told = [f"[{index + 1}] {error}" for index, error in self.errors.items() if str(error)]
        error = self.errors[failed[0]] if failed else KeyboardInterrupt("; ".join(told))
        if places := failed[:1] or self.errors:
            error.add_note(f"{self.schedule.places(places)}; `{self.schedule.command}` goes on with it.")
        raise error


def _subject(stage: StageSettings) -> str:
    names = [getattr(stage, field, "") for field in ("tag", "sft_tag", "out", "backbone")]
    told = [next(filter(None, names), ""), getattr(stage, "shard", "")]
    return "".join(f" {word}" for word in told if word)


def waits_for(stages: Sequence[StageSettings]) -> list[frozenset[int]]:
    """For each stage the earlier ones, by index, that have to be done before it begins."""
    return [frozenset(i for i in range(number) if tied(stages[i], stage)) for number, stage in enumerate(stages)]
