"""Writes the page of a night, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from recsys_spark.config import Config
from recsys_spark.config.base import beside
from recsys_spark.context import Context
from recsys_spark.evaluate.gate import GateDecision
from recsys_spark.log import get_logger
from recsys_spark.report.collect import collect
from recsys_spark.report.html import render

log = get_logger(__name__)


def report_folder(config: Config) -> Path:
    """Where pages lie: ``report_dir``, by default ``reports/`` beside the warehouse."""
    return Path(config.publish.report_dir or beside(config.warehouse, "reports"))


def report_path(config: Config, run_id: str) -> Path:
    """Where the page of a run lies."""
    return report_folder(config) / f"{run_id}.html"


def write_report(config: Config, context: Context, eval_namespace: str, gate: GateDecision | None = None) -> Path:
    """Collect, draw and write the page of ``context`` (live); a reader never meets half a page. Returns its path."""
    path = report_path(config, context.run_id)
    write_page(path, render(collect(context, eval_namespace, gate)))
    log.info("report", path=str(path))
    return path


def write_page(path: Path, page: str) -> None:
    """Write to a temporary file beside the target, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(page, encoding="utf-8")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
