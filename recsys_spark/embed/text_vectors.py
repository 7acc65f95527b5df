"""Text vectors of a frozen text model: each text is encoded once, ever, and kept in a shared table."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.context import Context
from recsys_spark.embed.arrow import vector_column
from recsys_spark.embed.shipping import Place, ship, worker_text_encoder
from recsys_spark.encoder.text_source import Dtype, local_folder, resolve_dtype, text_dimension, text_model_key
from recsys_spark.tables.store import Commit, Written

TABLE = "item_text_vectors"
MIN_TEXTS_PER_TASK = 200  # fewer do not pay for loading the model in another worker


def text_vectors(context: Context, items: DataFrame) -> DataFrame:
    """``(item_idx, vector array<float>)`` of all items, by the config's text model; zeros for an item without text.

    Encodes what is missing in the shared table first.
    """
    settings = context.config.encoder
    key = text_model_key(settings.text_model, settings.max_tokens, settings.dtype)
    commit = Commit(context.run_id, "text_vectors", key)
    ensure_text_vectors(context, items, settings.text_model, settings.max_tokens, settings.dtype, commit)
    known = cached_vectors(context, key)
    zeros = F.array_repeat(F.lit(0.0).cast("float"), text_dimension(settings.text_model))
    joined = items.select("item_idx", "input_sha").join(known, "input_sha", "left")
    return joined.select("item_idx", F.coalesce("vector", zeros).alias("vector"))


def cached_vectors(context: Context, key: str) -> DataFrame:
    """``(input_sha, vector)`` of one text model (see ``text_model_key``)."""
    table = context.store.read_or_empty(TABLE, context.namespace)
    return table.where(F.col("text_model") == key).select("input_sha", "vector")


def ensure_text_vectors(
    context: Context, items: DataFrame, model: str | Path, max_tokens: int, dtype: Dtype, commit: Commit
) -> Written | None:
    """Encode the texts of ``items`` that the shared table lacks, on the executors; None where it has them all.

    An item without text gets no row. The model is loaded once per Python worker, which computes in one thread.

    Raises:
        ConfigError: there is no such text model.
    """
    name, exact = str(model), resolve_dtype(dtype)  # resolved here: executors of another kind must not differ
    key = text_model_key(name, max_tokens, exact)
    texts = items.where("has_text").select("input_sha", "text").dropDuplicates(["input_sha"])
    missing = texts.join(cached_vectors(context, key), "input_sha", "left_anti").persist()
    try:
        count = missing.count()
        if count == 0:
            return None
        folder = local_folder(name)
        place = Place("path", name) if folder is None else ship(context.spark, folder)
        encode = functools.partial(encode_texts, place, max_tokens, exact, context.config.embed.batch_size)
        encoded = missing.repartition(num_tasks(context, count)).mapInArrow(encode, "input_sha string, vector array<float>")
        rows = encoded.select("input_sha", F.lit(key).alias("text_model"), "vector")
        return context.store.merge(TABLE, context.namespace, rows, commit)
    finally:
        missing.unpersist()


def num_tasks(context: Context, num_texts: int) -> int:
    """As many tasks as keep every core busy, with neither too many texts in one nor a model loaded for a handful."""
    wanted = -(-num_texts // context.config.embed.texts_per_task)
    cores = context.spark.sparkContext.defaultParallelism
    return max(1, wanted, min(cores, num_texts // MIN_TEXTS_PER_TASK))


def encode_texts(
    place: Place, max_tokens: int, dtype: Dtype, batch_size: int, batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """On an executor: batches of (input_sha, text) to (input_sha, vector)."""
    for batch in batches:
        if batch.num_rows == 0:
            continue
        vectors = worker_text_encoder(place, max_tokens, dtype).encode(batch.column("text").to_pylist(), batch_size)
        columns = [batch.column("input_sha"), vector_column(vectors)]
        yield pa.RecordBatch.from_arrays(columns, names=["input_sha", "vector"])
