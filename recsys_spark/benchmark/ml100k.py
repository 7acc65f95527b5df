"""The recommenders-team protocol on MovieLens-100K by the production stages: chosen on a part of train, fitted on all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame, SparkSession

from recsys_spark.benchmark.folder import laid_over, settings_for
from recsys_spark.benchmark.leave_one_out import figures
from recsys_spark.benchmark.ml100k_sar import read_ratings, train_rows
from recsys_spark.benchmark.night import STAGES, BenchmarkNight
from recsys_spark.night import closing_night
from recsys_spark.recommend.fusion import Fusion
from recsys_spark.tables.local import local_frame

METRICS = ("map", "ndcg", "precision", "recall")
_VALIDATION_SHARE = 0.1  # of the train ratings of each item
_DEFAULTS: dict[str, Any] = {
    # rated items are many and in no order that a random split respects: all of them count, and blocks of users are small
    "recommend": {"history_items": 1_000, "user_block": 32, "new_items_per_ten": 0},
    "cooccurrence": {"max_basket_items": 1_000},
    "collaborative": {"als": {"enabled": True}},
}


def run_ml100k(data: Path, spark: SparkSession, work: Path, seed: int, overrides: dict[str, Any]) -> dict[str, Any]:
    """The row of figures: per system MAP, NDCG, precision and recall at 10 with intervals over users.

    Epochs and fusion are chosen on a tenth of the train ratings, that a first model is not fitted on; a second one is
    fitted on all train ratings with these choices and measured on the test ratings.

    Args:
        data: a folder with ``ml-100k.inter`` and ``ml-100k.item``, plain or gzipped.
        work: where the tables go.

    Raises:
        InputError: the folder does not hold MovieLens-100K.
    """
    folder = as_folder(data, work / "ml100k")
    roles = _roles(data, seed)
    config = settings_for(folder, work / "warehouse", seed, laid_over(_DEFAULTS, overrides))
    spaces = f"benchmark/ml100k-choice-seed{seed}", f"benchmark/ml100k-seed{seed}"
    choice = BenchmarkNight(config, spark, spaces[0], lambda events: _holdout(events, roles, choosing=True))
    with closing_night(choice):
        choice.ingest()
        for stage in ("cooccurrence", "pairs", "train"):
            getattr(choice, stage)("eval")
        epochs = int(choice.facts("train").get("best_epoch") or config.train.epochs)
        document = choice.facts("register")["fusion"]
    train = config.train.model_copy(update={"epochs": epochs})
    final = BenchmarkNight(
        config.model_copy(update={"train": train}),
        spark,
        spaces[1],
        lambda events: _holdout(events, roles, choosing=False),
        fusion=Fusion.from_document(document),
    )
    with closing_night(final):
        for stage in STAGES:
            getattr(final, stage)("eval")
    found = figures(final.store, final.eval_namespace, METRICS)
    return {
        "row": "ml100k",
        "data": "ml-100k",
        "cold_share": 0.0,
        "seed": seed,
        "systems": found,
        "fusion": document,
        "epochs": epochs,
    }


def as_folder(source: Path, target: Path) -> Path:
    """MovieLens-100K in the shape of a benchmark's folder: events.parquet in the file's order, and items.parquet.

    Raises:
        InputError: ``source`` does not hold it.
    """
    read_ratings(source)  # says what is amiss
    target.mkdir(parents=True, exist_ok=True)
    names: Any = {"user_id:token": str, "item_id:token": str, "timestamp:float": "int64"}
    events = pd.read_csv(_file(source, "ml-100k.inter"), sep="\t", dtype=names)
    events.columns = pd.Index(["user_id", "item_id", "rating", "ts"])
    events.to_parquet(target / "events.parquet", index=False)
    items = pd.read_csv(_file(source, "ml-100k.item"), sep="\t", dtype=str, keep_default_na=False)
    items.columns = pd.Index(["item_id", "title", "year", "classes"])
    items[["item_id", "title", "classes"]].to_parquet(target / "items.parquet", index=False)
    return target


def _file(folder: Path, name: str) -> Path:
    plain = folder / name
    return plain if plain.exists() else folder / f"{name}.gz"


def _roles(data: Path, seed: int) -> pd.DataFrame:
    """``user_id, item_id, role`` of every rating: test, validation (a tenth of an item's train ratings, drawn) or fit."""
    names: Any = {"user_id:token": str, "item_id:token": str}
    frame = pd.read_csv(_file(data, "ml-100k.inter"), sep="\t", dtype=names)
    is_train = np.zeros(len(frame), bool)
    is_train[train_rows(read_ratings(data))] = True
    drawn = np.random.default_rng(seed).random(len(frame)) < _VALIDATION_SHARE
    role = np.where(~is_train, "test", np.where(drawn, "validation", "fit"))
    return pd.DataFrame({"user_id": frame["user_id:token"], "item_id": frame["item_id:token"], "role": role})


def _holdout(events: DataFrame, roles: pd.DataFrame, choosing: bool) -> DataFrame:
    """``(event_id, role)``. While choosing, test ratings are hidden; afterwards validation ratings are fitted on."""
    wanted = roles[roles["role"] != "fit"] if choosing else roles[roles["role"] == "test"]
    named = wanted["role"].replace({"test": "hidden"}) if choosing else wanted["role"]
    rows = list(zip(wanted["user_id"], wanted["item_id"], named, strict=True))
    held = local_frame(events.sparkSession, rows, "user_id string, item_id string, role string")
    return events.join(held, ["user_id", "item_id"]).select("event_id", "role")
