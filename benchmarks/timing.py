"""Alternating timed runs of two or more sides in one process, and what is read off them."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from recsys_spark.log import get_logger

log = get_logger("benchmarks")
Way = Callable[[Path], None]  # does its work and writes its result into a folder, which does not exist yet
Spent = tuple[float, float]  # seconds by the clock, and those of all threads of this process


def now() -> Spent:
    """Both clocks; only ``between`` two of these means anything."""
    return time.perf_counter(), time.process_time()


def between(start: Spent, end: Spent) -> Spent:
    return end[0] - start[0], end[1] - start[1]


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for data and results, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="recsys-spark-bench-") as folder:
        yield Path(folder)


@dataclass(frozen=True)
class Timed:
    """``seconds[side]``: one value per round, rounds in one order for all sides."""

    seconds: dict[str, list[float]]

    @property
    def rounds(self) -> int:
        return min(len(values) for values in self.seconds.values())

    def median_s(self, side: str) -> float:
        return statistics.median(self.seconds[side])

    def medians(self) -> dict[str, float]:
        """``<side>_s`` of each side."""
        return {f"{side}_s": self.median_s(side) for side in self.seconds}

    def ratio(self, above: str, below: str) -> float:
        """Median over the rounds of seconds(above) / seconds(below): what drifts within minutes, drifts for both."""
        return statistics.median(a / b for a, b in zip(self.seconds[above], self.seconds[below], strict=True))


def seconds_of(side: Way, target: Path) -> float:
    """One run into a fresh folder."""
    start = time.perf_counter()
    side(target)
    return time.perf_counter() - start


def warm_up(sides: Mapping[str, Way], folder: Path) -> dict[str, Path]:
    """One run of each side that is not counted; its result stays, to be compared."""
    kept = {}
    for name, side in sides.items():
        kept[name] = folder / f"warm-{name}"
        log.info("warm-up", side=name, seconds=round(seconds_of(side, kept[name]), 2))
    return kept


def alternate(sides: Mapping[str, Way], rounds: int, folder: Path, work: float | Mapping[str, float], unit: str) -> Timed:
    """Time the sides in turn, each round in the opposite order of the one before.

    Args:
        sides: by name; each run writes into a new folder, which is deleted outside of the timing.
        work: how many ``unit`` one run does, of each side where they differ; for the rates in the log.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    done = work if isinstance(work, Mapping) else dict.fromkeys(sides, work)
    for number in range(rounds):
        order = list(sides) if number % 2 == 0 else [*sides][::-1]
        for name in order:
            target = folder / f"round-{number}-{name}"
            seconds[name].append(seconds_of(sides[name], target))
            shutil.rmtree(target, ignore_errors=True)
        shown = {f"{name}_s": round(values[-1], 2) for name, values in seconds.items()}
        rates = {f"{name}_{unit}_per_s": round(done[name] / values[-1]) for name, values in seconds.items()}
        log.info(f"round {number + 1} of {rounds}", **shown, **rates)
    return Timed(seconds)
