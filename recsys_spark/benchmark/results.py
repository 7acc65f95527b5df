"""Finished runs of a benchmark on disk, so that a stopped one goes on, and the table that is printed of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from recsys_spark.benchmark.leave_one_out import K
from recsys_spark.benchmark.published import Table
from recsys_spark.code_version import code_version
from recsys_spark.files import write_json
from recsys_spark.log import get_logger

log = get_logger(__name__)
_NAMES = {"hit_rate": "HR", "ndcg": "NDCG", "map": "MAP", "precision": "P", "recall": "R"}


def once(folder: Path, name: str, key: dict[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The row of ``name`` for this key (settings, seed) and this code: from the folder, or made and kept there."""
    digest = hashlib.sha256(json.dumps([key, code_version()], sort_keys=True, default=str).encode()).hexdigest()[:12]
    path = folder / f"{name}-{digest}.json"
    if path.exists():
        log.info("already measured", file=path.name)
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    row = make()
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, {**row, "key": key, "code": code_version()})
    return row


def lines(mean: dict[str, Any], rows: list[dict[str, Any]], published: Table | None) -> Iterable[str]:
    """A table: published rows where they are known, then ours with the interval over users of the first seed."""
    metrics = list(next(iter(mean["mean"].values())))
    if published is not None:
        yield published.title
        for row in published.rows:
            yield _line(row.system, [f"{row.figures[m]:.4f}" if m in row.figures else "" for m in metrics])
        yield ""
    yield _line(f"this run, {mean['seeds']} seed{'s' if mean['seeds'] > 1 else ''}", [f"{_NAMES.get(m, m)}@{K}" for m in metrics])
    for system in sorted(mean["mean"], key=lambda s: (" - " in s, s != "fused")):
        for segment in mean["mean"][system][metrics[0]]:
            cells = [_cell(mean["mean"][system][m].get(segment), rows[0]["systems"][system][m].get(segment)) for m in metrics]
            yield _line(system if segment == "all" else f"  {segment.replace('item_', '')} items", cells)


def _cell(value: float | None, first: list[float | None] | None) -> str:
    if value is None:
        return ""
    low, high = (None, None) if first is None else (first[1], first[2])
    return f"{value:.4f}" if low is None or high is None else f"{value:.4f} [{low:.4f}, {high:.4f}]"


def _line(name: str, cells: list[str]) -> str:
    return f"{name:44}" + "".join(f"{cell:>26}" for cell in cells)
