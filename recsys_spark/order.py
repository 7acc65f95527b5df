"""The order of a night's steps, run one by one or all together."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from recsys_spark.config import Config
from recsys_spark.errors import ConfigError
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
    known = [n for s, n in STEPS if s == stage]
    where = known[0] if namespace is None else namespace
    if where not in known:
        raise ConfigError("--namespace", f"stage '{stage}' has no '{where}'", f"{' or '.join(known)}")
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
            outcome = _step(night, stage, namespace)
            if after_step is not None:
                after_step(stage, namespace)
    path: Path = outcome
    return path


def _step(night: Night, stage: str, namespace: str) -> Any:
    """One step, and beside it what later ones would wait for."""
    if stage == "train":
        for each in ("live", "eval"):
            night.context(each)  # made once, before two threads ask for it
    work: Callable[[], Any] = partial(getattr(night, stage), namespace)
    beside = _BESIDE.get(stage)
    return work() if beside is None else side_by_side(work, partial(beside, night))[0]


_BESIDE: dict[str, Callable[[Night], Any]] = {
    # which takes seconds; and that it cannot be reached is said before much is computed
    "ingest": lambda night: night.registry,
    # the ranks leave Spark idle while they train
    "train": lambda night: night.without_model(),
}
