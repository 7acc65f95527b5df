"""What one row of the suite is, at which scale it runs, and the one line of JSON that it ends with."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Scale:
    """How large a row runs."""

    small: bool = False

    @property
    def rounds(self) -> int:
        """Timed runs of each side, after one run of each that is not counted."""
        return self.pick(3, 1)

    @property
    def name(self) -> str:
        return "small" if self.small else "full"

    def pick(self, full: T, small: T) -> T:
        """The value for this scale."""
        return small if self.small else full


@dataclass(frozen=True)
class Figures:
    """What a row measured.

    Args:
        ratio: what ``required`` and ``aim`` of the row are about; None where a row only reports.
        medians: median of each side, named with its unit: ``ours_s``, ``rival_s``, ``feed_rows_per_s``.
        rounds: timed runs behind each median.
        equal: whether both sides gave the same results; None where there is nothing to compare.
        more: further figures and the sizes of the data.
    """

    ratio: float | None
    medians: dict[str, float]
    rounds: int
    equal: bool | None
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Need:
    """Something that not every machine or run has: what it is called, whether it is there, and how to get it."""

    name: str
    is_there: Callable[[], bool]
    do: str


def setting(name: str) -> Need:
    """An environment variable that must be set."""
    return Need(name, lambda: name in os.environ, f"run it as {name}=... make bench ROW=...")


@dataclass(frozen=True)
class Row:
    """One row.

    Args:
        name: on the command line, and of its file of results.
        what: is measured.
        against: the rival.
        required, aim: of the ratio; None: no such bound.
        run: makes the data, runs both sides, checks and times them.
        at_most: the ratio must not be above the bounds; otherwise not below.
        needs: what must be there for the row to run; a whole run goes on without it.
    """

    name: str
    what: str
    against: str
    required: float | None
    aim: float | None
    run: Callable[[Scale], Figures]
    at_most: bool = False
    needs: Need | None = None

    @property
    def lacks(self) -> Need | None:
        """What the row needs and is not there."""
        return None if self.needs is None or self.needs.is_there() else self.needs

    def reaches(self, ratio: float | None, bound: float | None) -> bool | None:
        """Whether a ratio is on the right side of a bound; None without one of them."""
        if ratio is None or bound is None:
            return None
        return ratio <= bound if self.at_most else ratio >= bound

    def document(self, figures: Figures, scale: Scale) -> dict[str, Any]:
        """The line of JSON, as a dict. A fast wrong result does not meet anything."""
        met, aimed = self.reaches(figures.ratio, self.required), self.reaches(figures.ratio, self.aim)
        wrong = figures.equal is False
        return {
            "row": self.name,
            "ratio": None if figures.ratio is None else round(figures.ratio, 3),
            "wanted": "at most" if self.at_most else "at least",
            "required": self.required,
            "aim": self.aim,
            "met": met if met is None else met and not wrong,
            "aim_met": aimed if aimed is None else aimed and not wrong,
            "equal": figures.equal,
            "rounds": figures.rounds,
            **{name: round(value, 3) for name, value in figures.medians.items()},
            "scale": scale.name,
            **figures.more,
        }
