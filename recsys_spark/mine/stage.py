"""Stage mine: each user's nearest items by an encoder's vectors, without those they know, cut by rank."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config import Config
from recsys_spark.context import Context
from recsys_spark.embed.encode import item_vectors, user_vectors
from recsys_spark.encoder.package import model_identity, read_description
from recsys_spark.histories import histories
from recsys_spark.search.choose import prepare
from recsys_spark.search.sharded import search_all
from recsys_spark.tables.runs import StagePlan, StageReport
from recsys_spark.tables.store import Commit, Written

MINED = "mined_negatives"


def run(config: Config, context: Context, model_dir: Path) -> StageReport:
    """Write mined_negatives: per user the items at ranks ``mined_first`` to ``mined_last`` that no fit event of theirs names.

    The first ranks are left out because the best of what a user does not know is often what they would like (Xiong et al.
    2021, ANCE, arXiv 2007.00808; on the cut, Qu et al. 2021, RocketQA, arXiv 2010.08191). Histories end with the fit events, and
    only items with one are mined: nothing is learned of what is held out, and no new item becomes a negative.
    ``facts``: those of the search (method, recall).
    """
    wanted = config.pairs.negatives
    settings = {"first": wanted.mined_first, "last": wanted.mined_last, "model": model_identity(model_dir), "seed": config.seed}
    settings["search"] = config.search.model_dump(mode="json")
    inputs = {"items": context.items_content(), "events fit": context.events_content("fit")}

    def body(commit: Commit) -> tuple[list[Written], dict[str, Any]]:
        frame, facts = _mined(config, context, model_dir)
        return [context.store.replace(MINED, context.namespace, frame, commit)], facts

    return context.run_stage(StagePlan("mine", settings, inputs, (MINED,)), body)


def _mined(config: Config, context: Context, model_dir: Path) -> tuple[DataFrame, dict[str, Any]]:
    """``(user_idx, item_idx, rank, score)``, and the facts of the search."""
    wanted, fit = config.pairs.negatives, context.events("fit")
    known = context.items().join(fit.select("item_idx"), "item_idx", "left_semi")
    items = context.kept(_with_direction(item_vectors(context, model_dir, known)))
    settings = read_description(model_dir).settings
    past = histories(fit, settings.max_history, settings.moments)
    users = context.kept(_with_direction(user_vectors(context, model_dir, past, items)))
    queries = users.select(F.col("user_idx").alias("query_idx"), "vector")
    folder = str(config.work_dir / "search" / "mined")
    task, facts = prepare(
        context.spark, queries, items.select("item_idx", "vector"), wanted.mined_last, config.search, folder, config.seed
    )
    near = search_all(queries, task).where(F.col("rank") >= wanted.mined_first).withColumnRenamed("query_idx", "user_idx")
    mined = near.join(fit.select("user_idx", "item_idx"), ["user_idx", "item_idx"], "left_anti")
    return mined.select("user_idx", "item_idx", "rank", "score"), facts


def _with_direction(rows: DataFrame) -> DataFrame:
    """Without vectors of zeros: near to nothing."""
    return rows.where(F.exists("vector", lambda value: value != 0))
