"""What the profile tower and the table of queries are made of is brought out of the tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config import parse_config
from recsys_spark.config.moments import moment_of
from recsys_spark.context import Context
from recsys_spark.encoder.query_table import load_queries
from recsys_spark.errors import InputError
from recsys_spark.tables.contracts import contract
from recsys_spark.tables.local import local_frame
from recsys_spark.tables.store import Commit, Store
from recsys_spark.tables.visible import InstantCutoff
from recsys_spark.training.inputs import write_profiles, write_queries
from tests.debug_data import debug_config

PROFILES = {0: "a nurse", 1: None, 2: None, 3: "a baker who never came", 4: "a nurse", 5: "a pilot", 6: "a clerk"}
SEQUENCES = {0: [[-1, 7, 8]], 1: [[1, 2, 3]], 2: [[4, 5, 6]], 4: [[-1, 1, 2], [3, 4, 5]], 5: [[9, 8, 7]], 6: [[-1, 5, 6]]}


def by_length(context: Context, items: DataFrame) -> DataFrame:
    """A vector that tells the user and the length of the text."""
    parts = [F.col("item_idx").cast("float"), F.length("text").cast("float")]
    return items.where("has_text").select("item_idx", F.array(*parts).alias("vector"))


def _context(store: Store, commit: Commit, tmp_path: Path, **train: Any) -> Context:
    users = [(f"u{n}", n, text, None) for n, text in PROFILES.items()]
    store.replace("users", "live", local_frame(store.spark, users, contract("users").schema), commit)
    rows = [(u, items, sum(i >= 0 for i in items), 1.0, None) for u, many in SEQUENCES.items() for items in many]
    frame = local_frame(store.spark, rows, contract("training_sequences").schema)
    store.replace("training_sequences", "live", frame, commit, num_files=2)
    store.replace("events", "live", store.empty("events"), commit)
    settings: dict[str, Any] = debug_config(tmp_path, tmp_path / "w")
    settings["ingest"]["users"] = {"path": "users.csv", "columns": {"user_id": "user"}}
    settings["train"] = {**settings["train"], "profile_share": 0.2, **train}
    settings["embed"] = {"profile_users": True}
    config = parse_config(settings)
    return Context(store.spark, store, config, "live", InstantCutoff(config.as_of, config.as_of, config.as_of), "r1")


def _written(folder: Path) -> dict[int, tuple[float, list[int]]]:
    vectors, items = np.load(folder / "profile_vectors.npy"), np.load(folder / "profiles.npz")["items"]
    return {int(user): (float(size), row) for (user, size), row in zip(vectors, items.tolist(), strict=True)}


def test_users_with_text_and_events_with_the_longest_of_their_sequences(store: Store, commit: Commit, tmp_path: Path) -> None:
    context = _context(store, commit, tmp_path)
    write_profiles(context.config, context, tmp_path, by_length)
    found = _written(tmp_path)
    assert found == {0: (7.0, [-1, 7, 8]), 4: (7.0, [3, 4, 5]), 5: (7.0, [9, 8, 7]), 6: (7.0, [-1, 5, 6])}
    order = list(found)
    fewer = _context(store, commit, tmp_path, max_profiles=2)
    write_profiles(fewer.config, fewer, tmp_path, by_length)
    assert list(_written(tmp_path)) == order[:2], "those with the lowest hashes, in the same order"
    store.replace("users", "live", store.read("users", "live").where("profile_text IS NULL"), commit)
    nobody = Context(store.spark, store, context.config, "live", context.cutoff, "r2")
    with pytest.raises(InputError, match="nobody with a profile text"):
        write_profiles(context.config, nobody, tmp_path, by_length)


def test_the_most_frequent_queries_with_their_vectors(store: Store, commit: Commit, tmp_path: Path) -> None:
    context = _context(store, commit, tmp_path)
    encoder = context.config.encoder.model_copy(update={"query_key": "search", "max_queries": 3})
    config = context.config.model_copy(update={"encoder": encoder})
    with pytest.raises(InputError, match="no event with 'search'"):
        write_queries(config, context, tmp_path, by_length)
    asked = ["red shoes"] * 3 + ["tent"] * 2 + ["rake"] * 2 + ["once"] + [None] * 4
    day = config.as_of.date()
    rows = [
        (f"e{n}", "u", 0, "i", 0, "view", None, 1.0, 1, config.as_of, n, "s", None if said is None else {"search": said}, day)
        for n, said in enumerate(asked)
    ]
    frame = local_frame(store.spark, rows, contract("events").schema)
    store.replace("events", "live", frame.withColumn("ts", F.col("ts") - F.expr("INTERVAL 1 DAY")), commit)
    context = Context(store.spark, store, config, "live", context.cutoff, "r3")
    write_queries(config, context, tmp_path, by_length)
    known = load_queries(tmp_path)
    assert known is not None
    part = config.encoder.moments[-1]
    expected = {
        moment_of([part], {"context": {"search": said}}) // part.unit: len(said) for said in ("red shoes", "tent", "rake")
    }
    assert dict(zip(known[0].tolist(), known[1][:, 1].tolist(), strict=True)) == expected
