"""Structured log lines and one progress display, so that long work is always visible."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import structlog
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

LOG_EVERY_SECONDS = 10.0


def configure(level: str = "INFO", json: bool = False) -> None:
    """Send all log lines to stderr: readable on a terminal, JSON when asked for."""
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=28)
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )


def get_logger(name: str) -> Any:
    """A logger whose lines carry the module they come from."""
    return structlog.get_logger(module=name.removeprefix("recsys_spark."))


class Meter(Protocol):
    """What long work reports to: ``advance`` by units done, with optional figures to show."""

    def advance(self, units: float = 1, **figures: float) -> None: ...


class _TerminalMeter:
    def __init__(self, bar: Progress, unit: str, label: str, total: float | None) -> None:
        self._bar, self._task = bar, bar.add_task(label, total=total, rate=f"0 {unit}/s")
        self._unit, self._done, self._start = unit, 0.0, time.monotonic()

    def advance(self, units: float = 1, **figures: float) -> None:
        self._done += units
        rate = self._done / max(time.monotonic() - self._start, 1e-9)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        self._bar.update(self._task, advance=units, rate=f"{rate:,.0f} {self._unit}/s  {shown}")


class _LineMeter:
    def __init__(self, unit: str, label: str, total: float | None) -> None:
        self._log, self._unit, self._label, self._total = get_logger("progress"), unit, label, total
        self._done, self._start, self._last = 0.0, time.monotonic(), time.monotonic()

    def advance(self, units: float = 1, **figures: float) -> None:
        self._done += units
        now = time.monotonic()
        finished = self._total is not None and self._done >= self._total
        if now - self._last < LOG_EVERY_SECONDS and not finished:
            return
        self._last = now
        rate = round(self._done / max(now - self._start, 1e-9), 1)
        shown = {name: round(value, 5) for name, value in figures.items()}
        self._log.info(self._label, done=self._done, of=self._total, rate=f"{rate} {self._unit}/s", **shown)


def line_progress(label: str, total: float | None = None, unit: str = "rows") -> Meter:
    """Log lines on a terminal too: for what runs beside work that draws a bar."""
    return _LineMeter(unit, label, total)


@contextmanager
def progress(label: str, total: float | None = None, unit: str = "rows") -> Iterator[Meter]:
    """A bar with a rate on a terminal; otherwise a log line at most every ten seconds."""
    if not sys.stderr.isatty():
        yield line_progress(label, total, unit)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[rate]}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield _TerminalMeter(bar, unit, label, total)
