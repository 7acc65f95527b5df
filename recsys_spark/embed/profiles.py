"""Users of whom only a text is known: their vectors by the model's profile tower, or as the text of an unknown item."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.context import Context
from recsys_spark.embed.arrow import vector_column
from recsys_spark.embed.encode import dtype_of, text_vectors_of, with_known_text_vectors
from recsys_spark.embed.shipping import Place, ship, worker_model
from recsys_spark.encoder.package import read_description
from recsys_spark.encoder.text_source import Dtype

_SCHEMA = "user_idx int, vector array<float>"


def profile_rows(users: DataFrame, model_dir: str | Path) -> DataFrame:
    """``(user_id, user_idx, text, text_sha, num_events, history_sha)`` of users with a profile text; ``history_sha`` names
    the text."""
    dtype = dtype_of(read_description(model_dir))
    return users.where("profile_text IS NOT NULL").select(
        "user_id",
        "user_idx",
        F.col("profile_text").alias("text"),
        F.sha2("profile_text", 256).alias("text_sha"),
        F.lit(0).alias("num_events"),
        F.sha2(F.concat_ws("|", F.lit("profile"), F.lit(dtype), "profile_text"), 256).alias("history_sha"),
    )


def encode_profiles(context: Context, model_dir: str | Path, rows: DataFrame) -> DataFrame:
    """``(user_idx, vector)`` of rows of ``profile_rows``, by the model's profile tower; without one, of an unknown item with
    this text: item pairs are trained to find each other from both sides, so an item's vector is a query as well. Texts that
    training has encoded (``training.inputs.write_profiles``) are not encoded again.
    """
    model = read_description(model_dir)
    ready = with_known_text_vectors(context, model, rows)
    text = F.when(F.col("text_vector").isNull(), F.col("text"))
    encode = functools.partial(_encode, ship(context.spark, model_dir), dtype_of(model), context.config.embed.batch_size)
    return ready.select("user_idx", text.alias("text"), "text_vector").mapInArrow(encode, _SCHEMA)


def _encode(place: Place, dtype: Dtype, batch_size: int, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        if batch.num_rows:
            model = worker_model(place, dtype)
            vectors = model.encode_profile_vectors(text_vectors_of(model, batch, batch_size))
            columns = [batch.column("user_idx"), vector_column(vectors)]
            yield pa.RecordBatch.from_arrays(columns, names=["user_idx", "vector"])
