"""What the ranks read beside the training tables, brought to the driver as arrays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config import Config
from recsys_spark.context import Context
from recsys_spark.encoder.query_table import save_queries
from recsys_spark.errors import InputError
from recsys_spark.histories import value_of
from recsys_spark.training.feed.profiles import save_profiles
from recsys_spark.training.teacher import weights_between

TextVectors = Callable[[Context, DataFrame], DataFrame]  # items -> (item_idx, vector array<float>)


def write_profiles(config: Config, context: Context, folder: Path, text_vectors: TextVectors) -> None:
    """Users with a profile text and a training sequence: vectors of the texts, encoded once ever as those of items are, and
    the items of one sequence each. Of more than ``train.max_profiles`` those with the lowest hashes."""
    described = context.users().where("profile_text IS NOT NULL").select("user_idx", "profile_text")
    order = F.xxhash64("user_idx", F.lit(config.seed))
    met = context.read("training_sequences").groupBy("user_idx").agg(F.max_by("items", "num_items").alias("items"))
    users = described.join(met, "user_idx").orderBy(order, "user_idx").limit(config.train.max_profiles).persist()
    try:
        texts = users.select(F.col("user_idx").alias("item_idx"), F.col("profile_text").alias("text"))
        found = users.select("user_idx", "items", order.alias("place")).toPandas().sort_values(["place", "user_idx"])
        user_idx = found["user_idx"].to_numpy(np.int32)
        if len(user_idx) == 0:
            raise InputError("users", "nobody with a profile text and an event", "some", "set train.profile_share = 0")
        ascending = np.sort(user_idx)
        vectors = _vectors_of(context, texts, ascending, text_vectors)[np.searchsorted(ascending, user_idx)]
    finally:
        users.unpersist()
    save_profiles(folder, vectors, np.stack(found["items"].tolist()).astype(np.int32))


def write_queries(config: Config, context: Context, folder: Path, text_vectors: TextVectors) -> None:
    """The ``encoder.max_queries`` most frequent texts that fitted events hold under ``encoder.query_key``, with the vectors of
    the texts. Of two with one hash the more frequent stays.

    Raises:
        InputError: there is none.
    """
    key = config.encoder.query_key
    part = next(part for part in config.encoder.moments if part.is_query)
    said = context.events("fit").select(value_of(part).alias("item_idx"), F.element_at("context", F.lit(key)).alias("text"))
    counted = said.where("item_idx > 0").groupBy("item_idx", "text").agg(F.count(F.lit(1)).alias("num_events"))
    often = counted.groupBy("item_idx").agg(F.max(F.struct("num_events", "text")).alias("best"))
    most = often.orderBy(F.desc("best"), "item_idx").limit(config.encoder.max_queries).select("item_idx", "best.text").persist()
    try:
        hashes = np.sort(most.select("item_idx").toPandas()["item_idx"].to_numpy(np.int64))
        if len(hashes) == 0:
            do = "list the column in ingest.events.context, or leave encoder.query_key out"
            raise InputError("events", f"no event with '{key}' in its context", "some", do)
        vectors = _vectors_of(context, most, hashes, text_vectors)
    finally:
        most.unpersist()
    save_queries(folder, hashes, vectors)


def _vectors_of(
    context: Context, texts: DataFrame, item_idx: NDArray[np.integer[Any]], text_vectors: TextVectors
) -> NDArray[np.float32]:
    """Vectors of texts that are no item's: rows ``(item_idx, text)``, named by a hash of the text alone."""
    has_text = (F.length(F.trim("text")) > 0).alias("has_text")
    named = texts.select("item_idx", F.sha2("text", 256).alias("input_sha"), "text", has_text)
    return collect_vectors(text_vectors(context, named), item_idx)


def collect_vectors(frame: DataFrame, item_idx: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
    """Text vectors float32 [N, T] in the order of ``item_idx``; an item that has none gets zeros.

    Raises:
        InputError: there is no vector at all.
    """
    table = frame.select("item_idx", "vector").toArrow()
    if table.num_rows == 0:
        raise InputError("text vectors", "none for any item", do="run embed's text encoding again")
    values = table.column("vector").combine_chunks().flatten().to_numpy(zero_copy_only=False)
    vectors = values.astype(np.float32, copy=False).reshape(table.num_rows, -1)
    found = table.column("item_idx").to_numpy()
    wanted = np.isin(found, item_idx)
    rows = np.zeros((len(item_idx), vectors.shape[1]), dtype=np.float32)
    rows[np.searchsorted(item_idx, found[wanted])] = vectors[wanted]
    return rows


def collect_weights(frame: DataFrame, item_idx: NDArray[np.int32]) -> Any:
    """Table item_weights as CSR [N, N] between the rows of ``item_idx``."""
    table = frame.select("item_a", "item_b", "weight").toArrow()
    others, weights = (table.column(name).combine_chunks() for name in ("item_b", "weight"))
    lengths = others.value_lengths().to_numpy(zero_copy_only=False)
    ends = (part.flatten().to_numpy(zero_copy_only=False) for part in (others, weights))
    return weights_between(item_idx, table.column("item_a").to_numpy(), lengths, *ends)
