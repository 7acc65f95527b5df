"""What Spark's tasks do: each is given numbers of files, makes their blocks one by one, and hands on, counts or writes them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from recsys_spark.synthetic.blocks import COUNTS, Plan
from recsys_spark.synthetic.columns import event_schema
from recsys_spark.synthetic.settings import SyntheticSettings

# others are unique or nearly so: a dictionary would be built for nothing
_WITH_DICTIONARY = ["user_id", "item_id", "event_type", "device"]


def make_events(settings: SyntheticSettings, batches: Iterable[Any]) -> Iterator[Any]:
    """For ``mapInArrow``. In: ``id``, numbers of files. Out: ``columns.event_schema``, a batch per block."""
    plan = Plan(settings)
    for file in _numbers(batches):
        for block in plan.blocks_of(file):
            yield plan.batch(block)


def count_events(settings: SyntheticSettings, batches: Iterable[Any]) -> Iterator[Any]:
    """For ``mapInArrow``. In: ``id``, numbers of files. Out: ``blocks.COUNTS``, a row per block."""
    plan = Plan(settings)
    schema = pa.schema([(name, pa.int64()) for name in COUNTS])
    for file in _numbers(batches):
        yield pa.RecordBatch.from_pylist([plan.counts(block) for block in plan.blocks_of(file)], schema)


def write_parts(settings: SyntheticSettings, folder: str, batches: Iterable[Any]) -> Iterator[Any]:
    """For ``mapInArrow``. In: ``id``, numbers of files. Out: ``rows`` of each file written.

    A file gets its name when it is whole, always the same one: a task that is tried again, or run twice at once, replaces
    it by its equal.
    """
    plan = Plan(settings)
    Path(folder).mkdir(parents=True, exist_ok=True)
    for file in _numbers(batches):
        whole = Path(folder) / f"part-{file:05d}.parquet"
        partial = whole.with_name(f"_{whole.name}.{os.urandom(8).hex()}")
        rows = 0
        try:
            with pq.ParquetWriter(partial, event_schema(settings.format), use_dictionary=_WITH_DICTIONARY) as out:
                for block in plan.blocks_of(file):
                    batch = plan.batch(block)
                    out.write_batch(batch)
                    rows += batch.num_rows
            partial.replace(whole)
        finally:
            partial.unlink(missing_ok=True)
        yield pa.RecordBatch.from_pydict({"rows": pa.array([rows], pa.int64())})


def _numbers(batches: Iterable[Any]) -> Iterator[int]:
    for batch in batches:
        yield from batch.column(0).to_pylist()
