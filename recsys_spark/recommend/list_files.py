"""Lists go from the tasks that make them into files of their table; what else a task finds goes on through Spark."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.recommend.arrow import OUTPUT, output_batch
from recsys_spark.recommend.neighbours.whole_catalogue import NEIGHBOURS
from recsys_spark.recommend.worker import LISTS
from recsys_spark.tables.task_files import DataFile, Made, Target, into_file

FILES = "files"  # in place of a table's name: a row about a file
Columns = Mapping[str, str]  # of a table, where ``arrow.OUTPUT`` has them under other names
COLUMNS: dict[str, Columns] = {
    LISTS: {"user_id": "owner_id"},
    NEIGHBOURS: {"item_id": "owner_id", "neighbour_id": "item_id"},
}


def with_files(made: Made, table: str, columns: Columns, target: Target) -> Made:
    """``made`` with rows of ``table`` in files of ``target``, and in their place a row about each file."""
    return Made(made.source, functools.partial(_batches, made.make, table, columns, target), OUTPUT)


def files_of(rows: DataFrame) -> tuple[DataFile, ...]:
    """What ``with_files`` tells of its files."""
    told = rows.where(F.col("table") == FILES).select("owner_id", "number", "score").collect()
    return tuple(DataFile(name, num_rows, int(num_bytes)) for name, num_rows, num_bytes in told)


def _batches(
    make: Callable[[Iterable[Any]], Iterable[Any]], table: str, columns: Columns, target: Target, batches: Iterable[Any]
) -> Iterable[Any]:
    done = yield from into_file(make(batches), target, functools.partial(_rows, table, columns, target))
    if done is not None:
        told = {"owner_id": [done.name], "number": np.array([done.num_rows], np.int32), "score": [float(done.num_bytes)]}
        yield output_batch(FILES, 1, **told)


def _rows(table: str, columns: Columns, target: Target, batch: Any) -> Any | None:
    """Rows of ``table`` as its target names their columns; None: these are rows of something else."""
    if not batch.num_rows or batch.column("table")[0].as_py() != table:
        return None
    return pa.RecordBatch.from_pydict({name: batch.column(columns.get(name, name)) for name in target.columns})
