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
from typing import Any, NamedTuple

import pyarrow as pa
from pyspark.sql import SparkSession

from recsys_spark.cooccurrence.grouping import Baskets
from recsys_spark.cooccurrence.messages import ARROW, num_entries, read_baskets

POINTERS = "slot int, block int, num_entries bigint, file string, number int"
_ARROW = pa.schema(
    [("slot", pa.int32()), ("block", pa.int32()), ("num_entries", pa.int64()), ("file", pa.string()), ("number", pa.int32())]
)

Batches = Iterable[pa.RecordBatch]


class Pointer(NamedTuple):
    """To the message of this slot and block, with so many items, that stands at place ``number`` of a file."""

    slot: int
    block: int
    num_entries: int
    file: str
    number: int


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
            slot, block = message["slot"][0].as_py(), message["block"][0].as_py()
            found.append(Pointer(slot, block, num_entries(message), file, number))
    yield pa.RecordBatch.from_pylist([pointer._asdict() for pointer in found], schema=_ARROW)


def from_files(work: Callable[[Batches], Batches], batches: Batches) -> Batches:
    """Do a task's work on the messages that ``batches`` of ``POINTERS`` point to."""
    return work(messages_at(Pointer(**row) for batch in batches for row in batch.to_pylist()))


def messages_at(pointers: Iterable[Pointer]) -> Iterator[pa.RecordBatch]:
    """The messages, in order, as views of the files."""
    readers: dict[str, Any] = {}
    for pointer in pointers:
        if pointer.file not in readers:
            readers[pointer.file] = pa.ipc.open_file(pa.memory_map(pointer.file))
        yield readers[pointer.file].get_batch(pointer.number)


class BasketFiles:
    """All baskets, for tasks that share them: pointers go to a task, and pages of the files are in memory once."""

    def __init__(self, pointers: Sequence[Pointer]) -> None:
        self.pointers = pointers

    @property
    def value(self) -> list[Baskets]:
        return [read_baskets(message, 0) for message in messages_at(self.pointers)]
