"""The session that a command works in: it starts while what will work in it is still being imported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread

from pyspark.sql import SparkSession

from recsys_spark.cli.doctor import require_java
from recsys_spark.config import Config
from recsys_spark.session import build_session, is_small, load_workers

_building: Thread | None = None


def begin(config: Config, brief: bool = True, loads_workers: bool = False) -> None:
    """Start the session that ``session`` will give: the JVM takes as long as torch and MLflow do, on a core of its own.

    Args:
        config: of which the session is.
        brief: there is little to do (see ``build_session``).
        loads_workers: Spark's Python workers load what they need meanwhile, too.

    Raises:
        MachineError: no Java, or one that Spark does not run on.
    """
    require_java()

    def build() -> None:
        with suppress(Exception):  # whoever asks for the session meets the same error, and says it
            spark = build_session(config.spark, _name(config), brief)
            if loads_workers:
                load_workers(spark)

    global _building
    _building = Thread(target=build, name="session", daemon=True)
    _building.start()


@contextmanager
def session(config: Config, brief: bool = True) -> Iterator[SparkSession]:
    """The session of a command, the one that ``begin`` started if it did; stopped at the end.

    Raises:
        MachineError: no Java, or one that Spark does not run on.
    """
    require_java()
    spark = build_session(config.spark, _name(config), brief)  # waits for one that is being built
    try:
        yield spark
    finally:
        if _building is not None:
            _building.join()  # a worker that is still loading would see its session go, and say so at length
        spark.stop()


def has_small_log(config: Config) -> bool:
    """Both what is to be read and what was read before."""
    return is_small(*config.ingest.events.paths, f"{config.warehouse}/shared/events")


def _name(config: Config) -> str:
    return f"recsys-spark {config.name}"
