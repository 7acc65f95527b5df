"""Rows that Python tasks make, written by the tasks themselves as Parquet files of a table.

On their way through the JVM rows are turned from Arrow's columns into objects and back into Parquet's columns, one by one,
which is most of what large lists cost. A file counts only once the driver has heard of it and committed it
(``add_files``), so what a killed task or a second copy of it leaves behind is in no table; Delta's vacuum takes it away.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StructType

from recsys_spark.tables.contracts import Contract

Batches = Iterable[Any]
FILES = "path string, num_rows bigint, num_bytes bigint"
_OF_PATTERNS = re.compile(r"([\[\]{}*?\\])")  # what would make a path a pattern to Spark
_GROUP_ROWS = 1 << 17  # of a row group, at least, where there are so many


@dataclass(frozen=True)
class Made:
    """Rows as tasks make them: ``make`` goes over the batches of ``source`` in each task and yields batches of ``schema``."""

    source: DataFrame
    make: Callable[[Batches], Batches]
    schema: StructType | str

    @property
    def frame(self) -> DataFrame:
        """The same rows as a frame."""
        return self.source.mapInArrow(self.make, self.schema)


@dataclass(frozen=True)
class Target:
    """Where tasks put files, and what these hold.

    Args:
        folder: of the table, absolute, on a disk that all executors see.
        schema: of the files, in order.
        constants: values of columns that batches lack.
    """

    folder: str
    schema: pa.Schema
    constants: Mapping[str, Any] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """Those that batches have."""
        return [column.name for column in self.schema if column.name not in self.constants]


@dataclass(frozen=True)
class DataFile:
    """A finished file: its name in the table's folder, rows and size."""

    name: str
    num_rows: int
    num_bytes: int


@dataclass
class Staged:
    """Finished files in a table's folder that no commit names yet; ``partition``: the values that all their rows have there, as
    ``partition_text`` writes them."""

    folder: str
    files: tuple[DataFile, ...]
    partition: Mapping[str, str] = field(default_factory=dict)
    handed_over: bool = False  # to a commit, which may name them now

    @property
    def num_rows(self) -> int:
        return sum(file.num_rows for file in self.files)

    def frame(self, spark: SparkSession, spec: Contract) -> DataFrame:
        """The rows, with the columns of the contract."""
        folder = _OF_PATTERNS.sub(r"\\\1", self.folder)
        paths = [f"file://{folder}/{file.name}" for file in self.files]
        kept = StructType([column for column in spec.schema if column.name not in self.partition])
        types = {column.name: column.dataType for column in spec.schema}
        values = {name: F.lit(value).cast(types[name]) for name, value in self.partition.items()}
        return spark.read.schema(kept).parquet(*paths).withColumns(values)

    def remove_unless_handed_over(self) -> None:
        """Delete files that no commit can name."""
        for file in () if self.handed_over else self.files:
            (Path(self.folder) / file.name).unlink(missing_ok=True)


def partition_text(moment: datetime) -> str:
    """An instant as Delta's log has those of partitions."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


def target_of(folder: str, spec: Contract, constants: Mapping[str, Any] | None = None) -> Target:
    """For rows of a table: all columns of its contract but the partitions, which Delta keeps in its log."""
    columns = StructType([column for column in spec.schema if column.name not in spec.partition])
    for column in columns:
        column.nullable = True  # as Delta writes them; ``content.check`` looks for nulls
    return Target(folder, to_arrow_schema(columns), constants or {})


class TaskFile:
    """The one file of a task, begun with its first rows. Left by an error, it is deleted."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._name = f"part-{uuid.uuid4()}.snappy.parquet"
        self._path = Path(target.folder) / self._name
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[Any] = []
        self._num_waiting = self._num_rows = 0

    def __enter__(self) -> TaskFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None and self._writer is not None:
            self._writer.close()
            self._path.unlink(missing_ok=True)

    def add(self, batch: Any) -> None:
        """Rows as a record batch; columns that the target does not name are left out."""
        columns = [self._column(batch, column) for column in self._target.schema]
        self._waiting.append(pa.RecordBatch.from_arrays(columns, schema=self._target.schema))
        self._num_waiting += batch.num_rows
        if self._num_waiting >= _GROUP_ROWS:
            self._write()

    def finish(self) -> DataFile | None:
        """Close the file; None where there was no row."""
        self._write()
        if self._writer is None:
            return None
        self._writer.close()
        return DataFile(self._name, self._num_rows, self._path.stat().st_size)

    def _column(self, batch: Any, column: pa.Field) -> Any:
        if column.name in self._target.constants:
            return pa.repeat(pa.scalar(self._target.constants[column.name], column.type), batch.num_rows)
        return batch.column(column.name).cast(column.type)

    def _write(self) -> None:
        if not self._num_waiting:
            return
        if self._writer is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(
                self._path,
                self._target.schema,
                compression="snappy",
                use_dictionary=_repeating(self._target.schema),
                store_schema=False,
            )
        self._writer.write_table(pa.Table.from_batches(self._waiting), row_group_size=self._num_waiting)
        self._num_rows += self._num_waiting
        self._waiting, self._num_waiting = [], 0


def _repeating(schema: pa.Schema) -> list[str]:
    """Columns (leaves, as Parquet names them) whose values are worth a dictionary: all but floats, which hardly repeat."""
    return [leaf for column in schema for leaf in _leaves(column.name, column.type)]


def _leaves(name: str, kind: pa.DataType) -> list[str]:
    if pa.types.is_struct(kind):
        return [leaf for part in kind for leaf in _leaves(f"{name}.{part.name}", part.type)]
    if pa.types.is_list(kind):
        return _leaves(f"{name}.list.element", kind.value_type)
    return [] if pa.types.is_floating(kind) or pa.types.is_boolean(kind) else [name]


def into_file(batches: Batches, target: Target, rows_of: Callable[[Any], Any | None]) -> Generator[Any, None, DataFile | None]:
    """Put what ``rows_of`` makes of each batch into a task's one file; batches of which it makes None are passed on."""
    with TaskFile(target) as file:
        for batch in batches:
            rows = rows_of(batch)
            if rows is None:
                yield batch
            else:
                file.add(rows)
        return file.finish()


def stage(made: Made, spec: Contract, folder: str, constants: Mapping[str, Any] | None = None) -> Staged:
    """Have the tasks write all rows of a table without partitions into its folder, and hear from them which files there are."""
    rows = made.source.mapInArrow(partial(_write_all, made.make, target_of(folder, spec, constants)), FILES).collect()
    return Staged(folder, tuple(DataFile(*row) for row in rows))


def _write_all(make: Callable[[Batches], Batches], target: Target, batches: Batches) -> Iterable[Any]:
    done = yield from into_file(make(batches), target, lambda batch: batch)
    if done is not None:
        yield pa.RecordBatch.from_pydict({"path": [done.name], "num_rows": [done.num_rows], "num_bytes": [done.num_bytes]})
