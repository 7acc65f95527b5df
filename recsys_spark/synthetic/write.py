"""Make a log and write it: items, graph, events, then what was put in, and last the configuration."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from recsys_spark.config import load_config
from recsys_spark.errors import MachineError
from recsys_spark.log import get_logger
from recsys_spark.synthetic import flaws, folder, frames
from recsys_spark.synthetic.blocks import Plan
from recsys_spark.synthetic.settings import SyntheticSettings

_log = get_logger(__name__)
_WRITE_OPTIONS: dict[str, dict[str, str]] = {
    "parquet": {},
    "csv": {"header": "true", "escape": '"'},
    "jsonl": {"ignoreNullFields": "false"},  # else a log without a purchase has no column of values
}
_SPARK_FORMATS = {"parquet": "parquet", "csv": "csv", "jsonl": "json"}


def write_log(spark: SparkSession, settings: SyntheticSettings, out: Path, overwrite: bool = False) -> dict[str, Any]:
    """Write ``events``, ``items``, ``graph``, ``synthetic.json`` and ``config.toml`` into ``out``; the last one last.

    The session's time zone must be UTC, as ``build_session`` sets it.

    Returns: the counts of ``synthetic.json``, and the seconds and rows per second that events took.

    Raises:
        ConfigError: ``out`` holds something that would be lost (see ``folder.prepare``).
        MachineError: files that tasks have written are not to be seen here.
    """
    folder.prepare(out, overwrite)
    counts = _write_items(spark, settings, out)
    counts |= _counts(spark, settings)
    _log.info("events begin", rows=counts["rows"], files=Plan(settings).files)
    began = time.monotonic()
    if settings.format == "parquet":
        frames.written(spark, settings, out / folder.EVENTS)
        _check_parts(out / folder.EVENTS, Plan(settings).files)
    else:
        _write(frames.events(spark, settings), settings, out / folder.EVENTS)
    seconds = time.monotonic() - began
    _log.info("events written", rows=counts["rows"], seconds=round(seconds, 1))
    document = {"settings": settings.model_dump(mode="json"), "counts": counts, "ingest": ingest_expects(counts)}
    (out / folder.COUNTS).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    _write_config(settings, out)
    _log.info("configuration written", path=str(out / folder.CONFIG))
    return counts | {"seconds": round(seconds, 3), "rows_per_second": round(counts["rows"] / max(seconds, 1e-9))}


def ingest_expects(counts: dict[str, Any]) -> dict[str, Any]:
    """What ingest reports of these events: rows read, kept, merged and quarantined, and the reasons."""
    reasons = {kind.reason: counts["bad"][kind.name] for kind in flaws.BAD if kind.reason and counts["bad"][kind.name]}
    quarantined = sum(reasons.values())
    return {
        "read": counts["rows"],
        "kept": counts["rows"] - quarantined - counts["duplicates"],
        "merged": counts["duplicates"],
        "quarantined": quarantined,
        "reasons": reasons,
    }


def _write_items(spark: SparkSession, settings: SyntheticSettings, out: Path) -> dict[str, Any]:
    made = frames.item_rows(spark, settings)
    _write(frames.items(made, settings), settings, out / folder.ITEMS)
    _log.info("items written", rows=settings.items, topics=settings.topics)
    counts = {"items": settings.items}
    if settings.graph:
        _write(frames.graph(made), settings, out / folder.GRAPH)
        counts["graph"] = 2 * settings.items
        _log.info("graph written", rows=counts["graph"])
    return counts


def _counts(spark: SparkSession, settings: SyntheticSettings) -> dict[str, Any]:
    """Counts of the events, bad rows by kind."""
    counts: dict[str, Any] = dict(frames.counts(spark, settings))
    counts["bad"] = {kind.name: counts.pop(kind.name) for kind in flaws.BAD}
    return counts


def _check_parts(events: Path, files: int) -> None:
    """On a cluster without a shared mount each executor has written to a disk of its own."""
    seen = len(list(events.glob("part-*.parquet")))
    if seen != files:
        do = "name a folder on a shared mount, or use --master local[*]"
        raise MachineError("--out", f"{seen} of {files} files written are in {events}", "a folder that all executors share", do)


def _write(frame: DataFrame, settings: SyntheticSettings, path: Path) -> None:
    writer = frame.write.format(_SPARK_FORMATS[settings.format]).options(**_WRITE_OPTIONS[settings.format])
    writer.save(path.as_uri())


def _write_config(settings: SyntheticSettings, out: Path) -> None:
    """Only a configuration that loads is left."""
    unchecked = out / (folder.CONFIG + ".partial")
    unchecked.write_text(folder.config_text(out, settings), encoding="utf-8")
    load_config(unchecked)
    unchecked.replace(out / folder.CONFIG)
