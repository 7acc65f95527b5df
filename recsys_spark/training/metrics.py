"""Figures of every step as JSON lines: what the report's loss curve is drawn from."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

KINDS = ("own", "known_pair", "guide")  # of masks, in the order they are counted: a cell counts for the first that excludes it


@dataclass(frozen=True)
class StepMetrics:
    """After step ``step`` (from 1) of epoch ``epoch`` (from 0): losses in nats over all ranks.

    ``masked_*``: negatives that were left out, over all ranks, each counted for the first reason (``training.relations``).
    ``feed_wait_share``: part of the step's time spent waiting for rows. ``recall``: at the end of an epoch only.
    """

    step: int
    epoch: int
    loss: float
    user_item_loss: float
    item_item_loss: float
    learning_rate: float
    examples_per_second: float
    feed_wait_share: float
    recall: float | None = None
    explicit_loss: float = 0.0
    outcome_loss: float = 0.0
    profile_loss: float = 0.0
    masked_own: int = 0
    masked_known_pair: int = 0
    masked_guide: int = 0


class MetricLog:
    """Appends lines; on a resumed run, lines after the checkpoint's step are dropped first, so no step is there twice."""

    def __init__(self, path: Path, done_steps: int) -> None:
        self._path = path
        kept = [line for line in read_metrics(path) if line["step"] <= done_steps]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        self._file: TextIO | None = None

    def __enter__(self) -> MetricLog:
        self._file = self._path.open("a", encoding="utf-8", buffering=1)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, figures: StepMetrics) -> None:
        """Add one line."""
        if self._file is not None:
            self._file.write(json.dumps(asdict(figures)) + "\n")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole lines; a last line that was cut off by a kill is left out."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def loss_curve(lines: list[dict[str, Any]], points: int = 200) -> list[list[float]]:
    """At most ``points`` of (step, mean loss since the point before), evenly spaced."""
    if not lines:
        return []
    size = -(-len(lines) // points)
    blocks = [lines[start : start + size] for start in range(0, len(lines), size)]
    return [[block[-1]["step"], sum(line["loss"] for line in block) / len(block)] for block in blocks]


def recall_curve(lines: list[dict[str, Any]]) -> list[list[float]]:
    """(epoch from 1, validation recall) of every validated epoch."""
    return [[line["epoch"] + 1, line["recall"]] for line in lines if line["recall"] is not None]


def masked_per_epoch(lines: list[dict[str, Any]]) -> list[dict[str, int]]:
    """Of every epoch in order, how many negatives each reason left out: ``own``, ``known_pair``, ``guide``."""
    found: dict[int, dict[str, int]] = {}
    for line in lines:
        epoch = found.setdefault(line["epoch"], dict.fromkeys(KINDS, 0))
        for kind in KINDS:
            epoch[kind] += line.get(f"masked_{kind}", 0)
    return [found[epoch] for epoch in sorted(found)]
