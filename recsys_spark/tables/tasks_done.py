"""How far Spark is while a stage runs: a line every ten seconds with tasks done, their rate, and how many are left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

from pyspark.sql import SparkSession

from recsys_spark.log import Meter, line_progress

_EVERY_SECONDS = 2.0
_CALL_SITE = ("callSite.short", "callSite.long")


@contextmanager
def tasks_shown(spark: SparkSession, label: str, every_seconds: float = _EVERY_SECONDS) -> Iterator[None]:
    """Report on all Spark stages that run while the block is open (those of other threads too: they share the cores)."""
    ended = Event()
    watch = _Watch(spark.sparkContext.statusTracker(), line_progress(label, unit="tasks"))

    def follow() -> None:
        while not ended.wait(every_seconds):
            watch.look()

    thread = Thread(target=follow, name=f"progress of {label}", daemon=True)
    thread.start()
    try:
        with _named(spark, label):
            yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def _named(spark: SparkSession, label: str) -> Iterator[None]:
    """Jobs of this thread bear the label in Spark's pages, which else name a line of py4j after walking the stack for it."""
    context = spark.sparkContext
    for key in _CALL_SITE:
        context.setLocalProperty(key, label)
    try:
        yield
    finally:
        for key in _CALL_SITE:
            context.setLocalProperty(key, None)  # type: ignore[arg-type]  # None takes it away


class _Watch:
    def __init__(self, tracker: Any, meter: Meter) -> None:
        self._tracker, self._meter = tracker, meter
        self._done: dict[int, int] = {}  # Spark stage under way -> tasks done when last looked at
        self._finished: set[int] = set()

    def look(self) -> None:
        new, left = 0, 0
        for stage in {*self._tracker.getActiveStageIds(), *self._done} - self._finished:
            info = self._tracker.getStageInfo(stage)
            before = self._done.pop(stage, 0)
            if info is None or info.numCompletedTasks == info.numTasks:  # Spark forgets all but the last thousand
                self._finished.add(stage)
            else:
                self._done[stage] = info.numCompletedTasks
            if info is not None:
                new += info.numCompletedTasks - before
                left += info.numTasks - info.numCompletedTasks
        if new or left:
            self._meter.advance(new, left=left)
