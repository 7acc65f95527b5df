"""The order of a night's steps, run one by one or all together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from recsys_spark.config import Config
from recsys_spark.log import get_logger
from recsys_spark.night import Night, closing_night
from recsys_spark.parallel import side_by_side
from recsys_spark.tables.lock import namespace_lock

log = get_logger(__name__)
STEPS: tuple[tuple[str, str], ...] = (
    ("ingest", "live"),
    ("cooccurrence", "eval"),
    ("pairs", "eval"),
    ("train", "eval"),
    ("embed", "eval"),
    ("recommend", "eval"),
    ("evaluate", "eval"),
    ("cooccurrence", "live"),
    ("embed", "live"),
    ("recommend", "live"),
    ("publish", "live"),
)


def run_step(config: Config, spark: SparkSession, stage: str, namespace: str | None) -> Any:
    """One step of a night, under the lock of its warehouse; ``namespace`` defaults to the step's first."""
    night = Night(config, spark)
    where = namespace or next(n for s, n in STEPS if s == stage)
    with closing_night(night), namespace_lock(night.store, "live"):
        step: Callable[[str], Any] = getattr(night, stage)
        return step(where)


def run_night(config: Config, spark: SparkSession, after_step: Callable[[str, str], None] | None = None) -> Path:
    """All steps in order; returns the path of the report. ``after_step`` is told each (stage, namespace) when done."""
    night = Night(config, spark)
    outcome: Any = None
    with closing_night(night), namespace_lock(night.store, "live"):
        for number, (stage, namespace) in enumerate(STEPS, 1):
            log.info(f"step {number} of {len(STEPS)}", stage=stage, namespace=namespace)
            outcome = _train(night) if stage == "train" else getattr(night, stage)(namespace)
            if after_step is not None:
                after_step(stage, namespace)
    path: Path = outcome
    return path


def _train(night: Night) -> Any:
    """The ranks leave Spark idle while they train: what needs no model is done meanwhile."""
    for namespace in ("live", "eval"):
        night.context(namespace)  # made once, before two threads ask for it
    return side_by_side(lambda: night.train("eval"), night.without_model)[0]
