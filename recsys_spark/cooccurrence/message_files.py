"""Messages between tasks of one machine: through files that are mapped into memory, not through the JVM.

A shuffle copies a message six times between Python, the JVM and the disk, and a broadcast gathers all of them on the driver.
Here a task writes its messages into one file, and what goes through Spark are pointers to them.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark.sql import SparkSession

from recsys_spark.cooccurrence.grouping import Baskets
from recsys_spark.cooccurrence.messages import ARROW, read_baskets

POINTERS = "slot int, block int, file string, number int"
_NAMES = ("slot", "block", "file", "number")
_ARROW = pa.schema([("slot", pa.int32()), ("block", pa.int32()), ("file", pa.string()), ("number", pa.int32())])

Batches = Iterable[pa.RecordBatch]
Pointer = tuple[int, int, str, int]  # slot and block of a message, its file, its place there


def is_one_machine(spark: SparkSession) -> bool:
    """Whether driver and tasks are threads and children of one process, which see the same disk."""
    master = str(spark.sparkContext.master)
    return master == "local" or master.startswith("local[")


@contextmanager
def message_folder(spark: SparkSession) -> Iterator[str]:
    """A folder where Spark keeps its shuffles too, gone afterwards."""
    places = os.environ.get("SPARK_LOCAL_DIRS") or spark.sparkContext.getConf().get("spark.local.dir", None)
    where = places.split(",")[0].strip() if places else None
    if where is not None:
        Path(where).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="recsys-spark-", dir=where, ignore_cleanup_errors=True) as folder:
        yield folder


def into_files(work: Callable[[Batches], Batches], folder: str, batches: Batches) -> Iterator[pa.RecordBatch]:
    """Do a task's work and write its messages into a file of this attempt; its pointers, ``POINTERS``.

    A second copy of a task writes a file of its own, and what a killed one leaves nobody points to.
    """
    file = str(Path(folder, f"{uuid.uuid4().hex}.arrow"))
    found: list[Pointer] = []
    with pa.OSFile(file, "wb") as sink, pa.ipc.new_file(sink, ARROW) as writer:
        for number, message in enumerate(work(batches)):
            writer.write_batch(message)
            found.append((message["slot"][0].as_py(), message["block"][0].as_py(), file, number))
    yield pa.RecordBatch.from_pylist([dict(zip(_NAMES, pointer, strict=True)) for pointer in found], schema=_ARROW)


def from_files(work: Callable[[Batches], Batches], batches: Batches) -> Batches:
    """Do a task's work on the messages that ``batches`` of ``POINTERS`` point to."""
    return work(messages_at([tuple(row.values()) for batch in batches for row in batch.to_pylist()]))


def messages_at(pointers: Sequence[Any]) -> Iterator[pa.RecordBatch]:
    """The messages, in order, as views of the files."""
    readers: dict[str, Any] = {}
    for _, _, file, number in pointers:
        if file not in readers:
            readers[file] = pa.ipc.open_file(pa.memory_map(file))
        yield readers[file].get_batch(number)


class BasketFiles:
    """All baskets, for tasks that share them: pointers go to a task, and pages of the files are in memory once."""

    def __init__(self, pointers: Sequence[Any]) -> None:
        self.pointers = pointers

    @property
    def value(self) -> list[Baskets]:
        return [read_baskets(message, 0) for message in messages_at(self.pointers)]
