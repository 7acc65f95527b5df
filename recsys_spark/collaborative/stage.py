"""The partners in closed form: fit events in, the namespace's item_transitions, item_weights (EASE) and item_factors (ALS)
out.

Part of the co-occurrence stage: its counts are what EASE is solved from, and every run that counts needs both.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from recsys_spark.collaborative.als import item_factors
from recsys_spark.collaborative.ease import OVERLAP_K, agreement, ease_weights, largest, max_items
from recsys_spark.collaborative.gram import Gram, gram_of
from recsys_spark.collaborative.transitions import item_transitions
from recsys_spark.config import Config
from recsys_spark.config.signals import AlsSettings, CollaborativeSettings, EaseSettings, TransitionSettings
from recsys_spark.context import Context
from recsys_spark.cooccurrence.stage import id_hashes
from recsys_spark.errors import ConfigError, MachineError
from recsys_spark.log import get_logger
from recsys_spark.memory import free_bytes
from recsys_spark.parallel import side_by_side
from recsys_spark.tables.contracts import contract
from recsys_spark.tables.local import local_frame
from recsys_spark.tables.runs import StagePlan, StageReport
from recsys_spark.tables.store import Commit, Written

log = get_logger(__name__)
TRANSITIONS, WEIGHTS, FACTORS = "item_transitions", "item_weights", "item_factors"
_CHECKED_ITEMS = 64  # whose float32 weights are compared with exact ones


def run(config: Config, context: Context, measured_with_ease: bool | None = None) -> StageReport | None:
    """Replace item_transitions, item_weights and item_factors of the namespace; None where none is asked for.

    A table of a partner that takes no part is left without rows.

    Args:
        measured_with_ease: whether the evaluation of what is to be served had EASE: what is served has it then, and only then,
            however much memory is free by now. None: the memory decides.

    Raises:
        ConfigError: ``collaborative.ease.enabled = "on"`` and the catalogue is larger than the memory allows.
        MachineError: the counts cannot be inverted in the precision asked for; or EASE was measured, and memory lacks now.
    """
    settings = asked(config)
    if settings.ease.enabled == "off" and not settings.als.enabled and not settings.transitions.enabled:
        return None
    depends_on = {"settings": settings.model_dump(mode="json"), "seed": config.seed, "measured_with_ease": measured_with_ease}
    depends_on["min_users"] = config.cooccurrence.min_users
    plan = StagePlan("collaborative", depends_on, {"events": context.events_content("fit")}, (TRANSITIONS, WEIGHTS, FACTORS))

    def body(commit: Commit) -> tuple[list[Written], dict[str, Any]]:
        weights, facts = _ease(config, context, settings.ease, measured_with_ease)
        factors = _als(config, context, settings.als)
        with _transitions(config, context, settings.transitions) as transitions:
            frames = {TRANSITIONS: transitions, WEIGHTS: weights, FACTORS: factors}
            put, to = context.store.replace, context.namespace
            return side_by_side(*[partial(put, name, to, frame, commit) for name, frame in frames.items()]), facts

    return context.run_stage(plan, body)


def asked(config: Config) -> CollaborativeSettings:
    """The settings, without what is on by default and nobody reads: partners that ``recommend.partners`` leaves out."""
    found, partners = config.collaborative, config.recommend.partners
    changes: dict[str, Any] = {}
    if found.ease.enabled == "auto" and "ease" not in partners and not config.train.ease_teaches:
        changes["ease"] = found.ease.model_copy(update={"enabled": "off"})
    if "transitions" not in partners:
        changes["transitions"] = found.transitions.model_copy(update={"enabled": False})
    return found.model_copy(update=changes)


@contextmanager
def _transitions(config: Config, context: Context, settings: TransitionSettings) -> Iterator[DataFrame]:
    if not settings.enabled:
        yield local_frame(context.spark, [], contract(TRANSITIONS).schema)
        return
    hashes, min_users = id_hashes(context, config.seed), config.cooccurrence.min_users
    with item_transitions(context.events("fit"), settings, config.seed, hashes, min_users) as frame:
        yield frame


def measured_ease(facts: dict[str, Any]) -> bool | None:
    """What the facts of an evaluation's run say of EASE (see ``run``)."""
    return "ease_items" in facts if {"ease", "ease_items"} & set(facts) else None


def _ease(config: Config, context: Context, settings: EaseSettings, measured: bool | None) -> tuple[DataFrame, dict[str, Any]]:
    spark = context.spark
    schema = contract(WEIGHTS).schema
    if settings.enabled == "off":
        return local_frame(spark, [], schema), {}
    if measured is False:
        return local_frame(spark, [], schema), {"ease": "left out, as in the evaluation"}
    events = context.events("fit")
    refused = why_not(settings, events.select("item_idx").distinct().count(), free_bytes())
    if refused is not None:
        if measured:
            raise MachineError("collaborative.ease", *refused, "lists were measured with it: free memory, then run again")
        if settings.enabled == "on":
            raise ConfigError(
                "collaborative.ease", *refused, "set enabled = 'auto': item-kNN alone, or give the driver more memory"
            )
        log.warning("EASE is left out: co-occurrence speaks alone", found=refused[0], allowed=refused[1])
        return local_frame(spark, [], schema), {"ease": "left out: " + refused[0]}
    found = gram_of(events, settings.max_history, config.seed)
    facts: dict[str, Any] = {"ease_items": len(found.item_idx), "ease_l2": settings.l2}
    if not len(found.item_idx):
        return local_frame(spark, [], schema), facts
    log.info("EASE begins", items=len(found.item_idx), billion_multiplications=round(len(found.item_idx) ** 3 / 1e9))
    weights = ease_weights(found.counts, settings.l2, np.float32 if settings.float32 else np.float64)
    if settings.float32:
        sample = np.unique(np.linspace(0, len(weights) - 1, _CHECKED_ITEMS).astype(np.int64))
        facts[f"ease_float32_overlap_at_{OVERLAP_K}"] = agreement(found.counts, settings.l2, weights, sample)
    if config.cooccurrence.min_users > 1:
        _forget_rare(weights, found, config.cooccurrence.min_users)
    log.info("EASE", **facts)
    return _rows(spark, found, weights, settings.top_n), facts


def _forget_rare(weights: Any, found: Gram, min_users: int) -> None:
    """No weight is kept of two items that some users have met both of, and fewer than ``min_users``."""
    counts = found.counts.tocoo()
    rare = (counts.data < min_users) & (counts.row != counts.col)
    weights[counts.row[rare], counts.col[rare]] = 0.0


def why_not(settings: EaseSettings, num_items: int, free: int) -> tuple[str, str] | None:
    """``(found, expected)`` where the catalogue is too large for the memory, or in "auto" for the time; else None."""
    itemsize = 4 if settings.float32 else 8
    most = max_items(free, itemsize)
    found = f"{num_items:,} items"
    if num_items > most:
        return found, f"at most {most:,}: 2 x {itemsize} n^2 bytes in half of the {free / 2**30:.1f} GiB that are free"
    if settings.enabled == "auto" and num_items > settings.max_items:
        return found, f"at most {settings.max_items:,} (collaborative.ease.max_items)"
    return None


def _rows(spark: SparkSession, found: Gram, weights: Any, top_n: int) -> DataFrame:
    """One row per item with all its weights, the largest first: millions of single rows would cost more than solving."""
    rows, cols, values = largest(weights, top_n)
    offsets = pa.array(np.searchsorted(rows, np.arange(len(weights) + 1)).astype(np.int32))
    others, kept = pa.array(found.item_idx[cols]), pa.array(values.astype(np.float32))
    columns = [pa.array(found.item_idx), pa.ListArray.from_arrays(offsets, others), pa.ListArray.from_arrays(offsets, kept)]
    table: Any = pa.Table.from_arrays(columns, names=["item_a", "item_b", "weight"])
    return spark.createDataFrame(table, contract(WEIGHTS).schema)


def _als(config: Config, context: Context, settings: AlsSettings) -> DataFrame:
    schema = contract(FACTORS).schema
    found = item_factors(context.events("fit"), settings, config.seed) if settings.enabled else None
    rows = [] if found is None else [(int(item), vector.tolist()) for item, vector in zip(*found, strict=True)]
    return local_frame(context.spark, rows, schema)
