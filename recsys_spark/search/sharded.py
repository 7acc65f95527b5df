"""Items and indexes written in shards by the executors, and queries searched by them."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.config.search import SearchSettings
from recsys_spark.files import write_json
from recsys_spark.search import approximate
from recsys_spark.search.exact import nearest
from recsys_spark.search.lists import Lists
from recsys_spark.search.storage import ITEMS, Shards, forget_others, publish, publish_array, read_json, unseen
from recsys_spark.search.vectors import Ints, Metric, Vectors, unit
from recsys_spark.tables.content import content_hash
from recsys_spark.tables.dealing import partition_keys
from recsys_spark.threads import one_thread

RESULT = "query_idx int, item_idx int, score double, rank int"
_BUILT = "shard int, rows int, written boolean"
_FORMAT = 1  # raise when files of the same name would hold something else
Batches = Iterator[pa.RecordBatch]


def vector_rows(column: Any, metric: Metric) -> Vectors:
    """A list column of equal, non-null lists as float32 ``[B, D]``, brought to unit length for the cosine."""
    flat = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    rows: Vectors = flat.reshape(len(column), -1)
    return unit(rows) if metric == "cosine" else rows


def write_items(
    items: DataFrame, num_items: int, metric: Metric, settings: SearchSettings, work_dir: str, seed: int
) -> tuple[Shards, int]:
    """The items as shards in ``work_dir``, and how many files had to be written (0 where the same items stand).

    The folder keeps the newest items alone: those of earlier nights go once the new ones stand.

    Items are ordered by a seeded hash of ``item_idx``, or by ``tie``, which decides ties; shards are successive ranges of
    it, so each is a random sample and all are about equal. One task writes one shard and holds it in memory.

    Args:
        items: ``(item_idx int, vector array<float>)``, checked; and if wanted ``tie bigint``, spread as a hash is.
    """
    num_shards = max(1, -(-num_items // settings.items_per_shard))
    name = f"{content_hash(items)}|{seed}|{num_shards}|{metric}|{_FORMAT}"
    folder = Path(work_dir).absolute() / f"{ITEMS}{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    done = read_json(folder / "items.json")
    if done is not None:
        return Shards(str(folder), tuple(done["numbers"]), tuple(done["sizes"])), 0
    order = F.col("tie") if "tie" in items.columns else F.xxhash64(F.lit(seed), "item_idx")
    share = order.cast("double") / F.lit(2.0**64) + F.lit(0.5)
    shard = F.least(F.floor(share * num_shards), F.lit(num_shards - 1)).cast("int")
    keys = F.array(*[F.lit(key) for key in partition_keys(items.sparkSession, num_shards)])
    placed = items.select("item_idx", "vector", order.alias("_order"), shard.alias("shard"))
    dealt = placed.withColumn("_key", F.get(keys, F.col("shard"))).repartition(num_shards, "_key")
    sorted_rows = dealt.sortWithinPartitions("shard", "_order", "item_idx").select("shard", "item_idx", "vector")
    write = partial(_write_shards, folder=str(folder), metric=metric)
    rows = sorted(sorted_rows.mapInArrow(write, _BUILT).collect())
    shards = Shards(str(folder), tuple(row["shard"] for row in rows), tuple(row["rows"] for row in rows))
    write_json(folder / "items.json", {"numbers": shards.numbers, "sizes": shards.sizes})
    forget_others(folder)
    return shards, sum(row["written"] for row in rows)


def _write_shards(batches: Batches, folder: str, metric: Metric) -> Batches:
    held: dict[int, list[tuple[Any, Vectors]]] = {}
    for batch in batches:
        numbers = batch.column("shard").to_numpy()
        item_idx, vectors = batch.column("item_idx").to_numpy(), vector_rows(batch.column("vector"), metric)
        for number in np.unique(numbers):
            mine = numbers == number
            held.setdefault(int(number), []).append((item_idx[mine], vectors[mine]))
    target = Shards(folder, (), ())
    for number, parts in held.items():
        ids, vectors = (np.concatenate([part[i] for part in parts]) for i in range(2))
        publish_array(target.items_path(number), ids)
        written = publish_array(target.vectors_path(number), vectors)
        yield _built(number, len(ids), written)


def _built(number: int, rows: int, written: bool) -> pa.RecordBatch:
    arrays = [pa.array([number], pa.int32()), pa.array([rows], pa.int32()), pa.array([written])]
    return pa.RecordBatch.from_arrays(arrays, names=["shard", "rows", "written"])


@dataclass(frozen=True)
class IndexFiles:
    """Where the index over some shards stands: ``tag`` names its parameters."""

    shards: Shards
    tag: str

    @property
    def centroids_path(self) -> Path:
        return Path(self.shards.folder) / f"centroids-{self.tag}.npy"

    def index_path(self, number: int) -> Path:
        return Path(self.shards.folder) / f"index-{self.tag}-{number:05d}.ivf"


def build_index(spark: SparkSession, shards: Shards, settings: SearchSettings, seed: int) -> tuple[IndexFiles, int]:
    """The index over the shards, and how many files had to be written (0 where it stands).

    The driver trains the centroids on a sample; each executor sorts its shard's vectors into their lists.
    """
    size = approximate.plan(shards.num_items, shards.vectors.dimension, settings.lists)
    name = f"{size.lists}|{size.training_rows}|{seed}|{faiss.__version__}|{_FORMAT}"
    files = IndexFiles(shards, hashlib.sha256(name.encode()).hexdigest()[:12])
    if files.centroids_path.exists():
        missing = [number for number in shards.numbers if not files.index_path(number).exists()]
        written = 0
    else:
        sample = approximate.training_sample(shards.vectors, size.training_rows, seed)
        publish_array(files.centroids_path, approximate.train_centroids(sample, size.lists, seed))
        missing, written = list(shards.numbers), 1
    if missing:
        build = partial(_index_shards, files=files, numbers=missing)
        rows = spark.range(0, len(missing), 1, len(missing)).mapInArrow(build, _BUILT).collect()
        written += sum(row["written"] for row in rows)
    return files, written


def _index_shards(batches: Batches, files: IndexFiles, numbers: list[int]) -> Batches:
    one_thread()
    if not files.centroids_path.exists():
        raise unseen(files.centroids_path)
    centroids = np.load(files.centroids_path)
    for batch in batches:
        for place in batch.column("id").to_pylist():
            number = numbers[place]
            vectors = np.load(files.shards.vectors_path(number))
            index = approximate.build(centroids, vectors)
            written = publish(files.index_path(number), lambda path, index=index: faiss.write_index(index, str(path)))  # type: ignore[misc]
            yield _built(number, len(vectors), written)


@functools.lru_cache(maxsize=4)
def opened(files: IndexFiles) -> approximate.Index:
    """The index of this process, memory-mapped; a Python worker opens it once, not once per task."""
    for path in (files.centroids_path, *(files.index_path(number) for number in files.shards.numbers)):
        if not path.exists():
            raise unseen(path)
    mapped = tuple(approximate.read_mapped(files.index_path(number)) for number in files.shards.numbers)
    return approximate.Index(files.shards.vectors, np.load(files.centroids_path), mapped)


@dataclass(frozen=True)
class Task:
    """How executors search: exactly in ``shards``, or with ``effort`` in ``files``."""

    shards: Shards
    k: int
    metric: Metric
    block: int
    files: IndexFiles | None = None
    effort: int = 0

    def search(self, queries: Vectors) -> Lists:
        """Lists of the queries ``[Q, D]``, which are as the metric needs them."""
        if self.files is None:
            return nearest(queries, self.shards.vectors, self.k, self.block)
        return opened(self.files).search(queries, self.k, self.effort, self.block)

    def items(self, queries: Vectors) -> Ints:
        """``item_idx [Q, L]`` nearest to queries as they come."""
        asked = unit(queries) if self.metric == "cosine" else queries
        return self.shards.item_idx[self.search(asked).positions]


def search_all(queries: DataFrame, task: Task) -> DataFrame:
    """``(query_idx, item_idx, score, rank)`` of every query of ``(query_idx int, vector array<float>)``, computed when read."""
    parts = 2 * queries.sparkSession.sparkContext.defaultParallelism
    rows = queries.select("query_idx", "vector").repartition(parts)
    return rows.mapInArrow(partial(_search, task=task), RESULT)


def _search(batches: Batches, task: Task) -> Batches:
    one_thread()
    item_idx = task.shards.item_idx
    for batch in batches:
        for start in range(0, batch.num_rows, task.block):
            part = batch.slice(start, task.block)
            lists = task.search(vector_rows(part.column("vector"), task.metric))
            length = lists.positions.shape[1]
            ranks = np.tile(np.arange(1, length + 1, dtype=np.int32), part.num_rows)
            ids = np.repeat(part.column("query_idx").to_numpy(), length)
            columns = [ids, item_idx[lists.positions.ravel()], lists.scores.ravel(), ranks]
            names = ["query_idx", "item_idx", "score", "rank"]
            yield pa.RecordBatch.from_arrays([pa.array(column) for column in columns], names=names)
