"""The co-occurrence stage: fit events in, the namespace's table 'cooccurrence' out."""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

import numpy as np
from pyspark.sql import functions as F

from recsys_spark.config import Config
from recsys_spark.config.signals import CooccurrenceSettings
from recsys_spark.context import Context
from recsys_spark.cooccurrence.additive.keeper import Keeper
from recsys_spark.cooccurrence.baskets import basket_rows
from recsys_spark.cooccurrence.count import Counted, cooccurrences
from recsys_spark.cooccurrence.plan import Hashes
from recsys_spark.errors import ConfigError
from recsys_spark.tables.runs import StagePlan, StageReport
from recsys_spark.tables.store import Commit, Written
from recsys_spark.tables.visible import InstantCutoff


def run(config: Config, context: Context) -> StageReport:
    """Count, score and replace the table 'cooccurrence' of the namespace.

    Facts: those of ``count.Counted``, and num_pairs, the rows stored.

    Raises:
        ConfigError: days are asked for, but the log has only an order.
    """
    settings = config.cooccurrence
    refuse_days_without_times(settings, has_times="ts" in config.ingest.events.columns)
    reference = _reference(context)
    depends_on = {
        "settings": settings.model_dump(mode="json"),
        "seed": config.seed,
        "reference": reference if settings.half_life_days is not None else None,
    }
    plan = StagePlan("cooccurrence", depends_on, {"events": context.events_content("fit")}, ("cooccurrence",))

    def body(commit: Commit) -> tuple[list[Written], dict[str, Any]]:
        with _counted(config, context, reference, commit) as counted:
            written = context.store.replace("cooccurrence", context.namespace, counted.rows, commit)
            return [written], {**counted.facts, "num_pairs": written.rows}

    return context.run_stage(plan, body)


def _counted(config: Config, context: Context, reference: datetime, commit: Commit) -> AbstractContextManager[Counted]:
    """From all events; in live, where it is asked for, from the state and what has changed. The counts are the same."""
    settings, hashes = config.cooccurrence, id_hashes(context, config.seed)
    if settings.incremental and context.namespace == "live":
        keeper = Keeper(context, settings, config.seed, hashes, commit)
        return keeper.table(keeper.update(reference), reference)
    return cooccurrences(basket_rows(context.events("fit"), settings), settings, reference, config.seed, hashes)


def refuse_days_without_times(settings: CooccurrenceSettings, has_times: bool) -> None:
    """A log that has only an order carries made-up times: days mean nothing there.

    Raises:
        ConfigError: a setting counted in days.
    """
    asked = {
        "window_days": settings.window_days is not None,
        "half_life_days": settings.half_life_days is not None,
        "basket = 'user_day'": settings.basket == "user_day",
    }
    for name in [name for name, used in asked.items() if used and not has_times]:
        expected = "times in the log (ingest.events.columns maps no 'ts')"
        raise ConfigError("config [cooccurrence]", name, expected, "map 'ts', or use whole histories without decay")


def _reference(context: Context) -> datetime:
    """The end of what is fitted on: the one instant that a run's decay refers to."""
    return context.cutoff.fit_until if isinstance(context.cutoff, InstantCutoff) else context.cutoff.end


def id_hashes(context: Context, seed: int) -> Hashes:
    """``hashes[item_idx]``: seeded hash of the item id, equal however and whenever items were numbered.

    Unsigned, in the order of SQL's ``xxhash64(seed, item_id)``. Brought to the driver once for all that a night counts.
    """
    hashes: Hashes = context.once(f"id hashes {seed}", lambda: _id_hashes(context, seed))
    return hashes


def _id_hashes(context: Context, seed: int) -> Hashes:
    hashed = context.read("items").select("item_idx", F.xxhash64(F.lit(seed), "item_id").alias("hash")).toArrow()
    items = hashed.column("item_idx").to_numpy()
    hashes = np.zeros(int(items.max()) + 1 if len(items) else 0, dtype=np.uint64)
    hashes[items] = hashed.column("hash").to_numpy().view(np.uint64) ^ np.uint64(1 << 63)
    return hashes
