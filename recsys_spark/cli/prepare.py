"""What a machine needs once, before its first night: Delta's jars, and the archive of Spark's classes."""

from __future__ import annotations

import multiprocessing
import tempfile
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession
from rich.console import Console

from recsys_spark import class_archive
from recsys_spark.cli.doctor import require_java
from recsys_spark.config import Config, parse_config
from recsys_spark.config.serving import SparkSettings
from recsys_spark.errors import MachineError
from recsys_spark.order import run_step
from recsys_spark.session import build_session, has_delta, load_workers

_STAGES = ("ingest", "cooccurrence")  # read, judge, join, count, upsert and replace; what later ones load beside is little
_NUM_USERS, _NUM_ITEMS, _NUM_EVENTS = 20, 12, 8  # events: per user


def prepare() -> None:
    """Fetch Delta's jars and archive the classes that the first stages load.

    Raises:
        MachineError: no Java, or one that Spark does not run on; or Java wrote no archive.
    """
    require_java()
    console = Console()
    if not has_delta():
        console.print("Delta's jars: fetching")
        _alone(_fetch)
    console.print("classes of Spark and Delta: running a little to see which it takes")
    home = class_archive.folder()
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home) as place:
        archive = Path(place) / "new.jsa"
        _alone(_rehearse, archive, Path(place) / "log")
        kept = class_archive.put(archive)
    console.print(f"{kept.stat().st_size >> 20} MiB in {kept}: sessions on this machine start by it from now on")


def _alone(work: Any, *arguments: Any) -> None:
    """In a process of its own, which has a JVM of its own."""
    process = multiprocessing.get_context("spawn").Process(target=work, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise MachineError("preparing this machine", f"a step ended with exit code {process.exitcode}", do="see above")


def _fetch() -> None:
    build_session(SparkSettings(), "recsys-spark prepare").stop()


def _rehearse(archive: Path, place: Path) -> None:
    """The first steps of a night, on a log that says nothing."""
    config = _config(place)
    spark = build_session(config.spark, "recsys-spark prepare", brief=True, leaves_classes=archive)
    load_workers(spark)
    for stage in _STAGES:
        run_step(config, spark, stage, None)
    _end(spark)


def _config(place: Path) -> Config:
    place.mkdir()
    start = datetime(2026, 1, 1, tzinfo=UTC)
    with (place / "events.csv").open("w", encoding="utf-8") as out:
        out.write("user,item,time\n")
        for user, event in product(range(_NUM_USERS), range(_NUM_EVENTS)):
            at = start + timedelta(hours=user + event)
            out.write(f"u{user},i{(user + event) % _NUM_ITEMS},{at.isoformat()}\n")
    with (place / "items.csv").open("w", encoding="utf-8") as out:
        out.write("item,title\n")
        out.writelines(f"i{item},title {item}\n" for item in range(_NUM_ITEMS))
    events = {"path": str(place / "events.csv"), "columns": {"user_id": "user", "item_id": "item", "ts": "time"}}
    items = {"path": str(place / "items.csv"), "columns": {"item_id": "item", "title": "title"}, "template": "{title}"}
    return parse_config(
        {
            "name": "prepare",
            "as_of": start + timedelta(days=30),
            "warehouse": str(place / "warehouse"),
            "ingest": {"events": events, "items": items},
            "evaluate": {"split": "leave_one_out"},
            "recommend": {"partners": ["cooccurrence", "popularity"]},
            "spark": {"shuffle_partitions": 2},
        }
    )


def _end(spark: SparkSession) -> None:
    """Stop the session and wait for its JVM, which writes the archive as it ends."""
    gateway: Any = spark.sparkContext._gateway
    spark.stop()
    gateway.shutdown()
    gateway.proc.stdin.close()
    gateway.proc.wait()
