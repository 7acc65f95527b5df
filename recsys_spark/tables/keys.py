"""Whether a key is unique, by its 64-bit hash; the key itself is looked at only where a hash occurs twice."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.errors import ContractError


def check_key(frame: DataFrame, table: str, key: tuple[str, ...], rows: int) -> None:
    """One job.

    Raises:
        ContractError: the key occurs twice among ``rows`` rows.
    """
    distinct = frame.agg(F.count_distinct(F.xxhash64(*key))).first()
    if distinct is not None and distinct[0] != rows:
        refuse_duplicates(frame, table, key)


def check_key_of_many(frame: DataFrame, table: str, key: tuple[str, ...]) -> None:
    """The same in half the time where rows are many: hashes are dealt to tasks that sort them, instead of being grouped."""
    hashes = frame.select(F.xxhash64(*key).alias("hash")).repartition("hash")
    found = hashes.mapInArrow(_repeats, "repeats bigint").agg(F.sum("repeats")).first()
    if found is not None and found[0]:
        refuse_duplicates(frame, table, key)


def _repeats(batches: Iterable[Any]) -> Iterable[Any]:
    parts = [batch.column(0).to_numpy() for batch in batches]
    hashes = np.sort(np.concatenate([np.empty(0, np.int64), *parts]))
    yield pa.RecordBatch.from_pydict({"repeats": [int(np.count_nonzero(hashes[1:] == hashes[:-1]))]})


def refuse_duplicates(frame: DataFrame, table: str, key: tuple[str, ...]) -> None:
    """Raises ContractError, with an example, where the key itself occurs twice."""
    twice = frame.groupBy(*key).count().where("count > 1").first()
    if twice is not None:
        value = ", ".join(f"{k}={twice[k]!r}" for k in key)
        raise ContractError(f"table '{table}'", f"key {value} occurs {twice['count']} times", "a unique key")
