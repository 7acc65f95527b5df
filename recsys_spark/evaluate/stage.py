"""The evaluate stage: reads lists of several systems and the held-out targets, writes table metrics."""

from __future__ import annotations

import json
from datetime import UTC
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config import Config
from recsys_spark.context import Context
from recsys_spark.errors import InputError, MissingTableError
from recsys_spark.evaluate import figures, frames
from recsys_spark.evaluate.gate import GateDecision, differences
from recsys_spark.evaluate.gate import decide as decide_by_differences
from recsys_spark.evaluate.segments import item_segments
from recsys_spark.evaluate.targets import held_out_targets
from recsys_spark.parallel import side_by_side
from recsys_spark.tables.contracts import contract
from recsys_spark.tables.instants import instant
from recsys_spark.tables.local import local_frame
from recsys_spark.tables.runs import StagePlan, StageReport, find_run
from recsys_spark.tables.store import Commit, Written

MAX_DIVERSITY_USERS = 2_000


def run(config: Config, context: Context, systems: dict[str, str]) -> StageReport:
    """Score each system on the same users; the first one is compared with each other one.

    Args:
        config: the configuration; ks beyond the length of the lists are left out (and named in the facts).
        context: of the namespace that table metrics is written to; its cutoff says what the test events are.
        systems: system name ('fused', 'cooccurrence', 'popularity', 'champion') -> namespace of its lists.

    Raises:
        InputError: no systems, or no test event.
        MissingTableError: a system has no lists.
    """
    if not systems:
        raise InputError("evaluate", "no systems to measure", "at least one namespace with recommendations")
    inputs = {
        f"{table} of {name}": context.store.content(table, space)
        for name, space in systems.items()
        for table in ("recommendations", "target_ranks")
    }
    inputs |= {"fit": context.events_content("fit"), "test": context.events_content("test"), "items": context.items_content()}
    settings = {
        "evaluate": config.evaluate.model_dump(mode="json"),
        "gate_k": config.gate.k,
        "seed": config.seed,
        "systems": list(systems),
        "cutoff": context.cutoff.describe(),
        "k": config.recommend.k,
        "split_attributes": config.attribute_separator,
    }
    plan = StagePlan("evaluate", settings, inputs, ("metrics",))
    return context.run_stage(plan, lambda commit: _measure(config, context, systems, commit))


def decide(config: Config, context: Context) -> GateDecision:
    """The gate's verdict on the metrics written in ``context.namespace``.

    Raises:
        MissingTableError: evaluate has not run.
        InputError: no champion and no baseline was measured with the gate's metric.
    """
    rows = context.read("metrics").where((F.col("segment") == figures.ALL) & (F.col("name") == config.gate.metric))
    return decide_by_differences(differences([row.asDict() for row in rows.collect()], config.gate), config.gate)


def _measure(config: Config, context: Context, systems: dict[str, str], commit: Commit) -> tuple[list[Written], dict[str, Any]]:
    found = {name: _system(context, space) for name, space in systems.items()}
    lists = {name: frames_of for name, (frames_of, _) in found.items()}
    versions = {name: version for name, (_, version) in found.items()}
    every_k = sorted({*config.evaluate.ks, config.gate.k})
    ks = [k for k in every_k if k <= config.recommend.k]
    if config.gate.k not in ks:
        raise InputError("gate.k", f"{config.gate.k}", f"a k within the lists, recommend.k = {config.recommend.k}")
    rows, facts = _rows(config, context, lists, held_out_targets(context), ks)
    facts |= {"ks_left_out": [k for k in every_k if k not in ks], "cutoff": context.cutoff.describe(), "model_versions": versions}
    written = context.store.replace("metrics", context.namespace, _frame(context, rows, versions), commit)
    return [written], facts | {
        "main": [r for r in rows if r["segment"] == figures.ALL and r["k"] in (config.gate.k, figures.AUC_K)]
    }


def _rows(
    config: Config, context: Context, lists: dict[str, frames.SystemFrames], wanted: DataFrame, ks: list[int]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    settings, names = config.evaluate, list(lists)
    items = context.items()
    segments = item_segments(context.events("fit"), items, settings.head_share, settings.tail_share).persist()
    users = wanted.select("user_id").distinct()
    catalogue = segments.join(items.where("available").select("item_idx"), "item_idx", "left_semi")
    sample = frames.sampled_categories(lists, users, items, MAX_DIVERSITY_USERS, config.seed).where(F.col("rank") <= max(ks))
    columns, counts, sampled = side_by_side(
        lambda: _collected(frames.ranked_targets(wanted, lists, segments, context.events("history"))),
        lambda: _collected(frames.item_counts(catalogue, lists, users, ks)),
        lambda: [tuple(row) for row in sample.collect()],
    )
    segments.unpersist()
    if not len(columns["user_idx"]):
        raise InputError(
            "evaluate", "no test event", "held-out events before as_of", "see evaluate.split and evaluate.holdout_days"
        )
    targets = figures.from_columns(names, columns)
    draws = figures.Draws(settings.bootstrap_samples, settings.confidence, config.seed)
    rows = figures.ranking_rows(targets, ks, draws)
    rows += figures.list_rows(names, ks, counts, targets.num_users)
    rows += figures.diversity_rows(names, ks, sampled, config.attribute_separator)
    out_of_reach = next((int((ranks == 0).sum()) for ranks in targets.full_SM.values()), 0)
    facts = {
        "targets_out_of_reach": out_of_reach,
        "num_users": targets.num_users,
        "num_targets": len(targets.user_M),
        "catalogue_items": len(counts["num_events"]),
    }
    return rows, facts


def _collected(frame: DataFrame) -> dict[str, NDArray[np.int64]]:
    """Integer columns through Arrow."""
    table = frame.toArrow()
    return {name: table.column(name).to_numpy().astype(np.int64) for name in table.column_names}


def _system(context: Context, namespace: str) -> tuple[frames.SystemFrames, int | None]:
    """Lists of the newest run of recommend for this as_of, and the model version behind them.

    Raises:
        MissingTableError: there are none.
    """
    where = f"recommendations in '{namespace}'"
    newest = find_run(context.store, namespace, "recommend")
    if newest is None or newest["as_of"].replace(tzinfo=UTC) != context.as_of:
        raise MissingTableError(where, f"no list of {context.as_of.isoformat()}", do="run recommend first")
    as_of = instant(context.as_of)
    lists = context.store.read("recommendations", namespace)
    lists = lists.where((F.col("as_of") == as_of) & (F.col("run_id") == newest["run_id"]))
    full = context.store.read("target_ranks", namespace) if context.store.exists("target_ranks", namespace) else None
    version = json.loads(newest["facts"] or "{}").get("model_version")
    return frames.SystemFrames(lists.select("user_id", "item_id", "rank"), full), version


def _frame(context: Context, rows: list[dict[str, Any]], versions: dict[str, int | None]) -> DataFrame:
    schema = contract("metrics").schema
    cutoff = context.cutoff.describe()
    full = [{**row, "model_version": versions.get(row["system"].split(" - ")[0]), "cutoff": cutoff} for row in rows]
    return local_frame(context.spark, [tuple(row[name] for name in schema.names) for row in full], schema)
