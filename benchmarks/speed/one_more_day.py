"""One more day (3% new events) into the state of co-occurrence, at 32M events: the update alone against a full rebuild.

Both sides run the stage's own ``Keeper`` over one Delta table of events and write a state of the same content; ``publish``
is the update and the table derived from it, ``direct`` a count of everything into that table without any state. Who is a
robot is decided before either, in a night as here, and is not part of it: no limits are set.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from benchmarks.compare import same_rows
from benchmarks.row import Figures, Scale
from benchmarks.spark import bench_session, read_delta, write_made
from benchmarks.speed.baskets import write_baskets
from benchmarks.speed.doubling import shape_of
from benchmarks.timing import Way, alternate, log, scratch, seconds_of
from recsys_spark.config import Config, parse_config
from recsys_spark.context import Context
from recsys_spark.cooccurrence.additive.keeper import Keeper
from recsys_spark.cooccurrence.additive.state import TABLE, State
from recsys_spark.cooccurrence.baskets import basket_rows
from recsys_spark.cooccurrence.count import cooccurrences
from recsys_spark.tables.content import Content, content
from recsys_spark.tables.contracts import contract
from recsys_spark.tables.instants import MICROS_PER_DAY, unix_micros
from recsys_spark.tables.store import Commit, Store
from recsys_spark.tables.visible import InstantCutoff

_DAYS = 33  # of equal size: one is 3% of the log
_FIRST = datetime(2024, 1, 1, tzinfo=UTC)
_LAST, _END = _FIRST + timedelta(days=_DAYS - 1), _FIRST + timedelta(days=_DAYS)
_COMMIT = Commit("benchmark", "cooccurrence", "none")


@dataclass(frozen=True)
class Log:
    """``root`` holds the events, and the state of all days but the last."""

    spark: SparkSession
    root: Path
    num_events: int
    num_new: int

    def keeper(self, target: Path, until: datetime) -> Keeper:
        """For a warehouse of its own that has the log's events."""
        target.mkdir(parents=True, exist_ok=True)
        if not (target / "shared").exists():
            (target / "shared").symlink_to(self.root / "shared", target_is_directory=True)
        config = _config(str(target))
        store = Store(self.spark, str(target))
        context = Context(self.spark, store, config, "live", InstantCutoff(until, until, until), "benchmark")
        return Keeper(context, config.cooccurrence, config.seed, None, _COMMIT)

    def update(self, target: Path) -> tuple[Keeper, State]:
        """The state of all days but the last takes in the last one."""
        shutil.copytree(self.root / "live", target / "live", copy_function=os.link)
        keeper = self.keeper(target, _END)
        return keeper, keeper.update(_END)

    def publish(self, target: Path) -> None:
        """The update, and the table."""
        keeper, state = self.update(target)
        with keeper.table(state, _END) as counted:
            write_made(self.spark, counted.rows, "cooccurrence", target / "table")

    def rebuild(self, target: Path) -> None:
        """A state of everything where there is none."""
        self.keeper(target, _END).update(_END)

    def direct(self, target: Path) -> None:
        """The table without a state."""
        keeper = self.keeper(target, _END)
        rows = basket_rows(keeper.context.events("fit"), keeper.settings)
        with cooccurrences(rows, keeper.settings, _END, keeper.seed) as counted:
            write_made(self.spark, counted.rows, "cooccurrence", target / "table")


def one_more_day(scale: Scale) -> Figures:
    """Row ``cooccurrence-one-more-day``."""
    spark = bench_session()
    with scratch() as folder:
        events = _make_log(spark, folder, scale.pick(32_000_000, 30_000))
        once: dict[str, Way] = {"publish": events.publish, "direct": events.direct}
        beside = {f"{name}_s": round(seconds_of(side, folder / name), 2) for name, side in once.items()}
        log.info("once", **beside)
        tables = [read_delta(spark, folder / name / "table") for name in once]
        equal = not tables[0].isEmpty() and same_rows(tables[0], tables[1], ("cosine",))
        sides: dict[str, Way] = {"ours": lambda target: _done(*events.update(target)), "rival": events.rebuild}
        work = {"ours": events.num_new, "rival": events.num_events}
        timed = alternate(sides, scale.rounds, folder, work, "events")
    more: dict[str, object] = {"events": events.num_events, "new_events": events.num_new, "publish_and_direct_runs": 1, **beside}
    more |= {"master": str(spark.sparkContext.master), "direct_to_update": round(beside["direct_s"] / timed.median_s("ours"), 2)}
    return Figures(timed.ratio("rival", "ours"), timed.medians(), timed.rounds, equal, more)


def _done(keeper: Keeper, state: State) -> None:
    """The new batch is one commit upon the state that was there."""
    found = keeper.context.store.version(TABLE, "live")
    if (found, state.batches) != (1, 1):
        raise RuntimeError(f"the state is at version {found}, expected 1: it was not updated but counted anew")


def _config(warehouse: str) -> Config:
    columns = {name: name for name in ("user_id", "item_id", "ts")}
    ingest = {"events": {"path": "none", "columns": columns}}
    counting = {"basket": "session", "measures": ["cosine"], "min_support": 2, "top_n": 100, "incremental": True}
    data = {"as_of": _END, "warehouse": warehouse, "ingest": ingest, "cooccurrence": counting}
    config = parse_config(data)
    robots = config.ingest.robots.model_copy(update={"max_events_per_minute": None, "max_z_score": None})
    return config.model_copy(update={"ingest": config.ingest.model_copy(update={"robots": robots})})


def _make_log(spark: SparkSession, folder: Path, num_events: int) -> Log:
    """A log of equal days, its last day appended by a commit of its own, after the state of the days before was counted."""
    shape = shape_of(num_events)
    written = write_baskets(folder / "rows", shape)
    rows = _events(spark.read.parquet(str(folder / "rows")), shape.num_baskets)
    root = folder / "log"
    store, present = Store(spark, str(root)), Content(0, 0)
    for late in (False, True):
        part = rows.where((F.col("ts") >= F.lit(_LAST)) == F.lit(late))
        present += content(part)
        told = _COMMIT.metadata_of("events", present)
        writer = part.repartition("event_date").write.format("delta").mode("append").partitionBy("event_date")
        writer.options(**{"delta.enableChangeDataFeed": "true", "userMetadata": told}).save(store.path("events", "live"))
        if not late:
            Log(spark, root, written, 0).keeper(root, _LAST).update(_LAST)
    num_new = store.read("events", "live").where(F.col("ts") >= F.lit(_LAST)).count()
    return Log(spark, root, written, num_new)


def _events(rows: DataFrame, num_baskets: int) -> DataFrame:
    """Rows of table events: a basket is a session, sessions follow each other in time."""
    micros = (F.col("basket") * F.lit(_DAYS * MICROS_PER_DAY // num_baskets)).cast("bigint")
    moment = F.timestamp_micros(micros + F.lit(unix_micros(_FIRST)))
    session = F.col("basket").cast("string")
    given = {
        "event_id": F.concat_ws(".", session, "item_idx"),
        "user_id": session,
        "user_idx": F.col("basket").cast("int"),
        "item_id": F.col("item_idx").cast("string"),
        "event_type": F.lit("view"),
        "value": F.lit(None).cast("double"),
        "weight": F.lit(1.0).cast("float"),
        "label": F.lit(1).cast("tinyint"),
        "ts": moment,
        "event_pos": F.lit(0).cast("bigint"),
        "session_id": session,
        "context": F.lit(None).cast("map<string,string>"),
        "event_date": F.to_date(moment),
    }
    return rows.withColumns(given).select(*contract("events").schema.names)
