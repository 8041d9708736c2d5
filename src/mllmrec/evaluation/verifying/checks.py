"""What one verification looked at and what it found to differ, by check."""

from __future__ import annotations

from collections.abc import Iterator

SHOWN = 3
CLOSE = 1e-9
ORDER = (
    "files as they were written",
    "the shape of metrics.json",
    "manifest.json",
    "inputs",
    "candidate file",
    "every example once",
    "same lists as the candidate file",
    "the whole catalogue but what is known",
    "one finite score a candidate",
    "higher, ties and rank",
    "metrics",
    "intervals",
    "minimum detectable differences",
    "chance and vacuous metrics",
    "counts and shares",
    "length-normalised metrics",
    "speed",
    "reference files",
)


class Checks:
    """Counts of comparisons and the differences among them; each name is one of ORDER.

    `on_trust` says in words what couldn't be held against anything.
    """

    def __init__(self) -> None:
        self.looked_at = dict.fromkeys(ORDER, 0)
        self.differences: dict[str, list[str]] = {name: [] for name in ORDER}
        self.on_trust: list[str] = []

    def look(self, name: str, alike: bool, difference: str) -> bool:
        """Count one comparison of a check, and what differs unless things are `alike`, which is returned."""
        self.looked_at[name] += 1
        if not alike:
            self.differences[name].append(difference)
        return alike

    def equal(self, name: str, what: str, told: object, found: object) -> bool:
        """Count one comparison of what a file tells with what was found."""
        return self.look(name, told == found, f"{what} is told as {told!r} and comes out as {found!r}")

    def near(self, name: str, what: str, told: object, expected: float, tolerance: float = CLOSE) -> bool:
        """Count one comparison of a number that a file tells with the one that was computed."""
        alike = isinstance(told, (int, float)) and abs(told - expected) <= tolerance
        return self.look(name, alike, f"{what} is told as {told!r} and comes out as {expected!r}")

    @property
    def passed(self) -> bool:
        return not any(self.differences.values())

    def rows(self) -> tuple[tuple[str, str, str], ...]:
        """One row of cells for each check that had something to look at."""
        return tuple(
            (name, f"{count:,}", f"{len(self.differences[name]):,}") for name, count in self.looked_at.items() if count
        )

    def told(self) -> Iterator[str]:
        """The first differences of each check in words, and how many more there are."""
        for name, found in self.differences.items():
            if found:
                more = f"; and {len(found) - SHOWN:,} more" if len(found) > SHOWN else ""
                yield f"{name}: {'; '.join(found[:SHOWN])}{more}."
