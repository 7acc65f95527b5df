"""Stage embed: item and user vectors of one model version; only what is new or changed is encoded."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config import Config
from recsys_spark.config.learning import EncoderSettings
from recsys_spark.context import Context
from recsys_spark.embed.encode import (
    dtype_of,
    encode_items,
    encode_users,
    frozen_key,
    item_block,
    with_history_sha,
    with_input_sha,
)
from recsys_spark.embed.profiles import encode_profiles, profile_rows
from recsys_spark.embed.text_vectors import ensure_text_vectors
from recsys_spark.encoder.package import model_identity, read_description
from recsys_spark.histories import histories
from recsys_spark.registry import ModelVersion
from recsys_spark.tables.content import content_hash
from recsys_spark.tables.runs import StagePlan, StageReport
from recsys_spark.tables.store import Commit, Written, slice_of

ITEMS, USERS = "item_embeddings", "user_embeddings"
Encode = Callable[[DataFrame], DataFrame]
Outcome = tuple[Written, int]  # what was written, and how many rows of it were encoded


def run(
    config: Config, context: Context, model: ModelVersion, model_dir: Path, only_users: DataFrame | None = None
) -> StageReport:
    """Bring this model version's rows of item_embeddings and user_embeddings up to date.

    Rows of items and users that are no longer visible go; rows of other model versions stay, for a rollback.
    ``facts``: items_encoded and users_encoded, the rest was kept.

    Args:
        only_users: the rows' ``user_idx`` are the users that get vectors; None: all.
    """
    description = read_description(model_dir)
    settings = {
        "model_name": model.model_name,
        "model_version": model.version,
        "model": model_identity(model_dir),
        "dtype": dtype_of(description),
        "profile_users": config.embed.profile_users,
    }
    inputs = {"items": context.items_content(), "history": context.events_content("history")}
    if config.embed.profile_users:
        inputs["users"] = context.users_content()
    if only_users is not None:
        only_users = only_users.select("user_idx").distinct()
        inputs["only_users"] = content_hash(only_users)
    plan = StagePlan("embed", settings, inputs, (ITEMS, USERS))

    def body(commit: Commit) -> tuple[list[Written], dict[str, Any]]:
        work = _Work(context, model, model_dir, commit, only_users)
        texts = work.texts()
        items, num_items = work.items()
        users, num_users = work.users(description.settings)
        facts = {"items_encoded": num_items, "users_encoded": num_users, "texts_encoded": texts.rows if texts else 0}
        return [w for w in (texts, items, users) if w is not None], facts

    return context.run_stage(plan, body)


class _Work:
    """The steps of one run."""

    def __init__(
        self, context: Context, model: ModelVersion, model_dir: Path, commit: Commit, only_users: DataFrame | None
    ) -> None:
        self._context, self._model, self._dir, self._commit = context, model, model_dir, commit
        self._only_users = only_users
        self._slice = slice_of(model_name=model.model_name) + f" AND model_version = {int(model.version)}"

    def texts(self) -> Written | None:
        """Fill the shared table of text vectors, where the model's text encoder is frozen."""
        model = read_description(self._dir)
        if frozen_key(model) is None:
            return None
        settings = model.settings
        items = self._context.items()
        return ensure_text_vectors(self._context, items, settings.text_model, settings.max_tokens, settings.dtype, self._commit)

    def items(self) -> Outcome:
        present = self._present(ITEMS)
        wanted = with_input_sha(self._context, self._dir, self._context.items()).persist()
        same = ["item_idx", "item_id", "input_sha"]
        kept = present.join(wanted.select(*same), same, "left_semi").select(*same, "vector")
        changed = wanted.join(present.select(*same), same, "left_anti").persist()
        try:
            count = changed.count()
            fresh = encode_items(self._context, self._dir, changed).select(*same, "vector")
            return self._write(ITEMS, kept.unionByName(fresh) if count else kept), count
        finally:
            changed.unpersist()
            wanted.unpersist()

    def users(self, settings: EncoderSettings) -> Outcome:
        block = self._context.spark.sparkContext.broadcast(item_block(self._present(ITEMS)))
        past = histories(self._asked_for(self._context.events("history")), settings.max_history, settings.moments)
        wanted = with_history_sha(self._dir, past, block).persist()
        present = self._present(USERS).select("user_id", "history_sha", "vector")
        held: list[DataFrame] = [wanted]
        try:
            by_history = functools.partial(encode_users, self._context, self._dir, block=block)
            rows, count = self._updated(wanted, present, by_history, held)
            if self._context.config.embed.profile_users:
                others = profile_rows(self._asked_for(self._context.users()), self._dir).join(wanted, "user_idx", "left_anti")
                profiles, more = self._updated(others, present, self._profiles, held)
                rows, count = rows.unionByName(profiles), count + more
            return self._write(USERS, rows), count
        finally:
            for frame in held:
                frame.unpersist()
            block.unpersist()

    def _asked_for(self, rows: DataFrame) -> DataFrame:
        return rows if self._only_users is None else rows.join(self._only_users, "user_idx", "left_semi")

    def _profiles(self, changed: DataFrame) -> DataFrame:
        return changed.join(encode_profiles(self._context, self._dir, changed), "user_idx")

    @staticmethod
    def _updated(wanted: DataFrame, present: DataFrame, encode: Encode, held: list[DataFrame]) -> tuple[DataFrame, int]:
        """Rows of users as they should be, and how many of them are encoded anew; what is persisted goes into ``held``."""
        same = ["user_id", "history_sha"]
        columns = ["user_id", "user_idx", "vector", "history_sha", "num_events"]
        kept = wanted.join(present, same).select(*columns)
        changed = wanted.join(present.select(*same), same, "left_anti").persist()
        held.append(changed)
        count = changed.count()
        return (kept.unionByName(encode(changed).select(*columns)) if count else kept), count

    def _present(self, table: str) -> DataFrame:
        return self._context.store.read_or_empty(table, self._context.namespace).where(self._slice)

    def _write(self, table: str, rows: DataFrame) -> Written:
        labelled = rows.withColumn("model_name", F.lit(self._model.model_name)).withColumn(
            "model_version", F.lit(self._model.version)
        )
        return self._context.store.replace(table, self._context.namespace, labelled, self._commit, where=self._slice)
