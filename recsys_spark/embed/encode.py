"""Items and histories to vectors on Spark executors: frames in, frames out, nothing written."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark import Broadcast
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config.learning import EncoderSettings
from recsys_spark.context import Context
from recsys_spark.embed.arrow import padded_lists, vector_column, vectors_of
from recsys_spark.embed.shipping import Place, ship, worker_model
from recsys_spark.embed.text_vectors import cached_vectors
from recsys_spark.encoder.attributes import CATEGORY, values_of
from recsys_spark.encoder.package import Description, read_description
from recsys_spark.encoder.packaged_model import PackagedModel
from recsys_spark.encoder.text_source import Dtype, resolve_dtype, text_model_key
from recsys_spark.errors import ConfigError
from recsys_spark.tables.local import local_frame

USERS_AT_ONCE = 512
PAD = -1
_ITEM_SCHEMA = "item_idx int, item_id string, vector array<float>, input_sha string"
_USER_SCHEMA = "user_id string, user_idx int, vector array<float>, history_sha string, num_events int"


# -- items ------------------------------------------------------------------------------------------------------------


def item_vectors(context: Context, model_dir: str | Path, items: DataFrame) -> DataFrame:
    """``(item_idx, item_id, vector array<float>, input_sha)`` for every item; lazy.

    ``input_sha`` names all that the vector depends on besides the model: text, whether the id is known, dtype. Text
    vectors of a frozen text model come from the shared table where it has them. An item with neither text nor a known
    id gets the zero vector.

    Raises:
        RegistryError: ``model_dir`` is no usable model folder.
    """
    return encode_items(context, model_dir, with_input_sha(context, model_dir, items))


def with_input_sha(context: Context, model_dir: str | Path, items: DataFrame) -> DataFrame:
    """``(item_idx, item_id, text, has_text, category, attributes, text_sha, input_sha)``: what encoding an item needs, and
    its identity."""
    model = read_description(model_dir)
    known = local_frame(context.spark, [(i,) for i in model.known_items], "item_id string").withColumn("known", F.lit(True))
    category = ["category"] if CATEGORY in model.settings.attributes else []  # attributes are in the table's input_sha
    parts = F.concat_ws("|", "input_sha", F.coalesce("known", F.lit(False)).cast("string"), F.lit(dtype_of(model)), *category)
    joined = items.join(known, "item_id", "left")
    columns = ["item_idx", "item_id", "text", "has_text", "category", "attributes"]
    return joined.select(*columns, F.col("input_sha").alias("text_sha"), F.sha2(parts, 256).alias("input_sha"))


def encode_items(context: Context, model_dir: str | Path, rows: DataFrame) -> DataFrame:
    """Vectors of rows of ``with_input_sha``."""
    model = read_description(model_dir)
    place, dtype = ship(context.spark, model_dir), dtype_of(model)
    text = F.when(F.col("has_text") & F.col("text_vector").isNull(), F.col("text"))
    described = ["category", "attributes"] if model.settings.attributes else []
    ready = with_known_text_vectors(context, model, rows)
    needed = ready.select("item_idx", "item_id", text.alias("text"), "text_vector", "input_sha", *described)
    return needed.mapInArrow(functools.partial(_encode_items, place, dtype, context.config.embed.batch_size), _ITEM_SCHEMA)


def with_known_text_vectors(context: Context, model: Description, rows: DataFrame) -> DataFrame:
    """``rows`` with ``text_vector``: that of their ``text_sha`` in the shared table, null where it has none."""
    key = frozen_key(model)
    if key is None:
        return rows.withColumn("text_vector", F.lit(None).cast("array<float>"))
    known = cached_vectors(context, key).select(F.col("input_sha").alias("text_sha"), F.col("vector").alias("text_vector"))
    return rows.join(known, "text_sha", "left")


def frozen_key(model: Description) -> str | None:
    """Key of the model's vectors in the shared table; None where its text model was trained, or is not at hand."""
    if model.settings.text_training != "frozen":
        return None
    try:
        return text_model_key(model.settings.text_model, model.settings.max_tokens, model.settings.dtype)
    except ConfigError:  # the folder it was trained from is gone; the model carries its own copy
        return None


def dtype_of(model: Description) -> Dtype:
    """What the model's text encoder computes in on this machine."""
    return resolve_dtype(model.settings.dtype)


def _encode_items(place: Place, dtype: Dtype, batch_size: int, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        if batch.num_rows == 0:
            continue
        model = worker_model(place, dtype)
        id_rows = model.id_rows(batch.column("item_id").to_pylist())
        vectors = model.encode_text_vectors(text_vectors_of(model, batch, batch_size), id_rows, _value_rows(model, batch))
        columns = [batch.column("item_idx"), batch.column("item_id"), vector_column(vectors), batch.column("input_sha")]
        yield pa.RecordBatch.from_arrays(columns, names=["item_idx", "item_id", "vector", "input_sha"])


def text_vectors_of(model: PackagedModel, batch: pa.RecordBatch, batch_size: int) -> NDArray[np.float32]:
    """Text vectors [n, T] of rows with ``text_vector`` or, where that is null, ``text``; zeros for a row with neither."""
    vectors = np.zeros((batch.num_rows, model.encoder.text_dim), dtype=np.float32)
    known = np.flatnonzero(batch.column("text_vector").is_valid().to_numpy(zero_copy_only=False))
    if len(known):
        vectors[known] = vectors_of(batch.column("text_vector").take(pa.array(known)), model.encoder.text_dim)
    fresh = np.flatnonzero(batch.column("text").is_valid().to_numpy(zero_copy_only=False))
    if len(fresh):
        vectors[fresh] = model.text.encode(batch.column("text").take(pa.array(fresh)).to_pylist(), batch_size)
    return vectors


def _value_rows(model: PackagedModel, batch: pa.RecordBatch) -> NDArray[np.int64] | None:
    """Rows of the batch's attribute values; None for a model that reads none."""
    names = model.settings.attributes
    if not names:
        return None
    columns = zip(batch.column("category").to_pylist(), batch.column("attributes").to_pylist(), strict=True)
    return model.value_rows([values_of(category, dict(attributes or []), names) for category, attributes in columns])


# -- users ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ItemBlock:
    """All item vectors as arrays: ``item_idx`` int64 [N] ascending, ``vectors`` [N, D], ``shas`` uint64 [N]."""

    item_idx: NDArray[np.int64]
    vectors: NDArray[np.float32]
    shas: NDArray[np.uint64]

    def rows(self, item_idx: NDArray[np.int64]) -> NDArray[np.int64]:
        """Row of each item, -1 for padding and for items that are not there."""
        if len(self.item_idx) == 0:
            return np.full(item_idx.shape, PAD, dtype=np.int64)
        rows = np.searchsorted(self.item_idx, item_idx).clip(max=len(self.item_idx) - 1)
        return np.where(self.item_idx[rows] == item_idx, rows, PAD)


def item_block(items: DataFrame) -> ItemBlock:
    """Collect ``(item_idx, vector, input_sha)`` on the driver, to be broadcast."""
    table = items.select("item_idx", "vector", "input_sha").toArrow().sort_by("item_idx")
    shas = np.array([int(sha[:16], 16) for sha in table.column("input_sha").to_pylist()], dtype=np.uint64)
    item_idx = table.column("item_idx").to_numpy().astype(np.int64)
    return ItemBlock(item_idx, vectors_of(table.column("vector")), shas)


def user_vectors(context: Context, model_dir: str | Path, histories: DataFrame, items: DataFrame) -> DataFrame:
    """``(user_id, user_idx, vector array<float>, history_sha, num_events)`` from histories (oldest first).

    Args:
        histories: ``user_id, user_idx, items array<int>, num_events`` (``recsys_spark.histories``), and ``moments`` for a
            model that reads them; the model's last ``max_history`` items count.
        items: the frame of ``item_vectors``, collected and broadcast.

    ``history_sha`` names the history's items and what their vectors were made of. Items without a vector are skipped,
    and a user with no other gets no row.
    """
    block = context.spark.sparkContext.broadcast(item_block(items))
    return encode_users(context, model_dir, histories, block)


def encode_users(context: Context, model_dir: str | Path, histories: DataFrame, block: Broadcast[ItemBlock]) -> DataFrame:
    """``user_vectors`` with the item vectors broadcast already."""
    settings = read_description(model_dir).settings
    encode = functools.partial(_encode_users, ship(context.spark, model_dir), settings.max_history, block)
    return histories.select(*_history_columns(settings)).mapInArrow(encode, _USER_SCHEMA)


def _history_columns(settings: EncoderSettings) -> list[str]:
    return ["user_id", "user_idx", "items", "num_events", *(["moments"] if settings.moments else [])]


def with_history_sha(model_dir: str | Path, histories: DataFrame, block: Broadcast[ItemBlock]) -> DataFrame:
    """``(user_id, user_idx, items, num_events, history_sha)`` of users with at least one item that has a vector, with
    ``moments`` before the last where the model reads them."""
    settings = read_description(model_dir).settings
    moments = ", moments array<bigint>" if settings.moments else ""
    schema = f"user_id string, user_idx int, items array<int>, num_events int{moments}, history_sha string"
    hashing = functools.partial(_hash_histories, settings.max_history, block)
    return histories.select(*_history_columns(settings)).mapInArrow(hashing, schema)


@dataclass(frozen=True)
class Located:
    """Users with an item that has a vector: their rows of the batch, their histories [n, L] as rows of the block (-1:
    padding, on the left) and, where the model reads them, the moments [n, L] before these items."""

    users: Any
    rows: NDArray[np.int64]
    moments: NDArray[np.int64] | None

    def shas(self, block: ItemBlock) -> list[str]:
        """Of the items, their inputs and moments, in order; padding does not count."""
        filled, rows = self.rows >= 0, self.rows.clip(min=0)
        parts = [block.item_idx[rows].astype(np.uint64), block.shas[rows]]
        parts += [] if self.moments is None else [self.moments.astype(np.uint64)]
        stacked = np.stack(parts, axis=-1)
        return [hashlib.sha256(row[keep].tobytes()).hexdigest() for row, keep in zip(stacked, filled, strict=True)]

    def vectors(self, model: PackagedModel, block: ItemBlock) -> NDArray[np.float32]:
        """User vectors [n, D]; users of like length are encoded together, since padding costs as much as items do."""
        lengths = (self.rows >= 0).sum(axis=1)
        order = np.argsort(lengths, kind="stable")
        found = np.empty((len(order), model.settings.dimension), np.float32)
        for start in range(0, len(order), USERS_AT_ONCE):
            some = order[start : start + USERS_AT_ONCE]
            columns = slice(self.rows.shape[1] - int(lengths[some[-1]]), None)
            moments = None if self.moments is None else self.moments[some, columns]
            found[some] = model.encode_histories(block.vectors, self.rows[some, columns], moments)
        return found


def _compact(rows: NDArray[np.int64], also: NDArray[np.int64] | None) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    """Holes (-1) moved to the left, the order of the rest kept, columns of padding alone dropped: [n, L] to [n, <= L];
    what stands beside them goes with them."""
    order = np.argsort(rows >= 0, axis=1, kind="stable")
    first = rows.shape[1] - int((rows >= 0).sum(axis=1).max(initial=0))
    packed = [None if values is None else np.take_along_axis(values, order, axis=1)[:, first:] for values in (rows, also)]
    return cast("NDArray[np.int64]", packed[0]), packed[1]


def _located(batch: pa.RecordBatch, length: int, block: ItemBlock) -> Located:
    has_moments = "moments" in batch.schema.names
    moments = padded_lists(batch.column("moments"), length, 0) if has_moments else None
    rows, moments = _compact(block.rows(padded_lists(batch.column("items"), length, PAD)), moments)
    kept = np.flatnonzero((rows >= 0).any(axis=1))
    return Located(batch.take(pa.array(kept)), rows[kept], None if moments is None else moments[kept])


def _hash_histories(length: int, block: Broadcast[ItemBlock], batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        found = _located(batch, length, block.value)
        if found.users.num_rows:
            shas = pa.array(found.shas(block.value), pa.string())
            yield pa.RecordBatch.from_arrays([*found.users.columns, shas], names=[*found.users.schema.names, "history_sha"])


def _encode_users(
    place: Place, length: int, block: Broadcast[ItemBlock], batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        found = _located(batch, length, block.value)
        if found.users.num_rows == 0:
            continue
        vectors = found.vectors(worker_model(place, "float32"), block.value)  # no text is encoded here
        shas = pa.array(found.shas(block.value), pa.string())
        named = {name: found.users.column(name) for name in found.users.schema.names}
        columns = [named["user_id"], named["user_idx"], vector_column(vectors), shas, named["num_events"]]
        yield pa.RecordBatch.from_arrays(columns, names=["user_id", "user_idx", "vector", "history_sha", "num_events"])
