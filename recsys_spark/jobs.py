"""What the files in jobs/ share: arguments, session, one step of a night."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from recsys_spark import process
from recsys_spark.config import Config, load_config
from recsys_spark.publish.named_users import named_users

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def main(stage: str) -> None:
    """Run one stage (or ``night``: all) under spark-submit: ``jobs/<stage>.py --config FILE [--namespace live|eval]``."""
    what = "recsys-spark: all stages of a night" if stage == "night" else f"recsys-spark stage '{stage}'"
    parser = _doorway(stage, what)
    if stage != "night":
        parser.add_argument("--namespace", choices=["live", "eval"], help="default: the first namespace of this stage in a night")
    parser.add_argument("--as-of", help="overrides the file's as_of, e.g. 2026-11-22T00:00:00Z, or today: the last midnight, UTC")
    arguments = parser.parse_args()
    with process.errors_as_lines():
        config = load_config(arguments.config, arguments.as_of)
        # after the checks: a typo in a config should not cost an import of torch
        from recsys_spark.order import run_night, run_step

        with _session(config, stage) as spark:
            if stage == "night":
                run_night(config, spark)
            else:
                run_step(config, spark, stage, arguments.namespace)


def prune() -> None:
    """Remove what older nights left: ``jobs/prune.py --config FILE --keep-nights N [--dry-run]``."""
    parser = _doorway("prune", "recsys-spark: remove what nights before the newest N left", " --keep-nights 14")
    parser.add_argument("--keep-nights", type=int, required=True, help="published nights that can still be returned to")
    parser.add_argument("--dry-run", action="store_true", help="say what would go, remove nothing")
    arguments = parser.parse_args()
    if arguments.keep_nights < 1:
        parser.error(f"--keep-nights {arguments.keep_nights}: at least 1 night stays")
    with process.errors_as_lines():
        config = load_config(arguments.config)
        from recsys_spark.publish.prune import keep_newest

        with _session(config, "prune") as spark:
            keep_newest(config, spark, arguments.keep_nights, arguments.dry_run, free_files=True)


def forget() -> None:
    """Remove all that is kept of users: ``jobs/forget.py --config FILE --file USERS [--dry-run] [--purge]``."""
    parser = _doorway("forget", "recsys-spark: remove all that is kept of users who ask for it", " --file users.txt")
    parser.add_argument("--file", required=True, type=Path, help="a text file with one user a line, as the log calls them")
    parser.add_argument("--dry-run", action="store_true", help="say what would go, remove nothing")
    parser.add_argument("--purge", action="store_true", help="free the files of older table versions at once, too")
    arguments = parser.parse_args()
    with process.errors_as_lines():
        config, users = load_config(arguments.config), named_users([], arguments.file)
        from recsys_spark.publish.forget import forget as forget_users

        with _session(config, "forget") as spark:
            forget_users(config, spark, users, arguments.dry_run, arguments.purge)


@contextmanager
def _session(config: Config, job: str) -> Iterator[SparkSession]:
    from recsys_spark.session import build_session

    spark = build_session(config.spark, f"recsys-spark {job}")
    try:
        yield spark
    finally:
        spark.stop()


def _doorway(job: str, what: str, arguments: str = "") -> argparse.ArgumentParser:
    process.start()
    process.die_with_parent()
    example = f"example: spark-submit --properties-file conf/spark.conf jobs/{job}.py --config conf/demo.toml{arguments}"
    parser = argparse.ArgumentParser(description=what, epilog=example)
    parser.add_argument("--config", required=True, help="TOML configuration")
    return parser
