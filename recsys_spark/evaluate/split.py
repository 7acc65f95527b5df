"""Which events a measuring run holds out, and the cutoff of any namespace."""

from __future__ import annotations

from datetime import timedelta

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from recsys_spark.config import Config
from recsys_spark.config.serving import EvaluateSettings
from recsys_spark.errors import InputError, MissingTableError
from recsys_spark.histories import liked
from recsys_spark.tables.content import content_hash
from recsys_spark.tables.runs import StagePlan, run_stage
from recsys_spark.tables.store import Commit, Store, Written
from recsys_spark.tables.visible import Cutoff, HoldoutCutoff, InstantCutoff, visible

MIN_EVENTS = 3  # one to fit on, one to validate, one to test
ROLES = ("validation", "test", "hidden")


def leave_one_out(events: DataFrame) -> DataFrame:
    """``(event_id, role)``: each user's last event is test, the one before validation, by (ts, event_pos).

    Only users with at least three events that are no dislikes take part. Dislikes are never targets, but one that
    follows a target is hidden with it (same role), or its user's future would be fitted on.
    """
    position = F.struct("ts", "event_pos", "event_id")
    newest_first = Window.partitionBy("user_idx").orderBy(F.desc("position"))
    likes = liked(events).select("user_idx", position.alias("position"))
    ranked = likes.withColumn("place", F.row_number().over(newest_first)).where(F.col("place") <= MIN_EVENTS)
    starts = (
        ranked.groupBy("user_idx")
        .agg(_at(1).alias("test_from"), _at(2).alias("validation_from"), F.count(F.lit(1)).alias("found"))
        .where(F.col("found") >= MIN_EVENTS)
    )
    role = F.when(position >= F.col("test_from"), F.lit("test")).when(position >= F.col("validation_from"), F.lit("validation"))
    return events.join(starts, "user_idx").select("event_id", role.alias("role")).where(F.col("role").isNotNull())


def _at(place: int) -> Column:
    return F.max(F.when(F.col("place") == place, F.col("position")))


def given_holdout(events: DataFrame, path: str) -> DataFrame:
    """``(event_id, role)`` from a Delta table made elsewhere, limited to known events.

    Raises:
        MissingTableError: there is no Delta table at ``path``.
        InputError: a column is absent or no string, a role is unknown, or no row names a known event.
    """
    where = f"holdout table {path}"
    try:
        given = events.sparkSession.read.format("delta").load(path)
    except AnalysisException:
        raise MissingTableError(where, "no Delta table there", do="check evaluate.holdout_table") from None
    kinds = dict(given.dtypes)
    for column in ("event_id", "role"):
        if kinds.get(column) != "string":
            raise InputError(where, f"column {column} is {kinds.get(column, 'absent')}", "columns event_id and role, both string")
    odd = given.where(F.col("role").isNull() | ~F.col("role").isin(*ROLES)).select("role").first()
    if odd is not None:
        raise InputError(where, f"role {odd['role']!r}", "'validation', 'test' or 'hidden'")
    known = given.select("event_id", "role").join(events.select("event_id"), "event_id", "left_semi")
    if known.isEmpty():
        raise InputError(where, "no row names an event before as_of", "event_id values of table events")
    return known


def make_holdout(events: DataFrame, settings: EvaluateSettings) -> DataFrame:
    """``(event_id, role)`` of the split; ``events`` are all events before as_of.

    Raises:
        InputError: the split is by time, which needs no table.
        MissingTableError, InputError: see ``given_holdout``.
    """
    if settings.split == "leave_one_out":
        return leave_one_out(events)
    if settings.split == "table" and settings.holdout_table:
        return given_holdout(events, settings.holdout_table)
    raise InputError("evaluate.split", f"'{settings.split}'", "a split that has a holdout table")


def time_cutoff(config: Config) -> InstantCutoff:
    """The last ``holdout_days`` before as_of are test, the ``validation_days`` before them validation."""
    settings = config.evaluate
    history_until = config.as_of - timedelta(days=settings.holdout_days)
    return InstantCutoff(history_until - timedelta(days=settings.validation_days), history_until, config.as_of)


def holdout_namespace(namespace: str) -> str:
    """Baselines and champion live below ``eval/<run_id>`` and share its holdout."""
    return "/".join(namespace.split("/")[:2])


def cutoff_for(config: Config, store: Store, namespace: str, run_id: str | None = None) -> Cutoff:
    """What a run in ``namespace`` may see: in ``live`` all before as_of, elsewhere the split of ``evaluate``.

    Leave-one-out and given holdouts are written once to table ``holdout`` (again only when their events change).

    Raises:
        MissingTableError: ingest has not run.
        InputError: the given holdout table cannot be used, or no user has enough events for leave-one-out.
    """
    if namespace == "live":
        return InstantCutoff(config.as_of, config.as_of, config.as_of)
    if config.evaluate.split == "time":
        return time_cutoff(config)
    home = holdout_namespace(namespace)
    _write_holdout(config, store, home, run_id or home.split("/")[-1])
    name = f"{config.evaluate.split} {store.content('holdout', home)}"
    return HoldoutCutoff(store.read("holdout", home), config.as_of, name)


def _write_holdout(config: Config, store: Store, namespace: str, run_id: str) -> None:
    settings = config.evaluate
    everything = store.read("events", namespace)
    before = visible(everything, InstantCutoff(config.as_of, config.as_of, config.as_of), "fit")
    inputs = {"events": content_hash(before.select("event_id", "user_idx", "ts", "event_pos", "label"))}
    if settings.split == "table" and settings.holdout_table:
        inputs["given"] = content_hash(given_holdout(before, settings.holdout_table))
    plan = StagePlan("holdout", {"split": settings.split, "given": settings.holdout_table}, inputs, ("holdout",))

    def body(commit: Commit) -> tuple[list[Written], dict[str, int]]:
        written = store.replace("holdout", namespace, make_holdout(before, settings), commit)
        if written.rows == 0:
            raise InputError("evaluate.split = 'leave_one_out'", "no user has 3 events", f"users with at least {MIN_EVENTS}")
        return [written], {"events_held_out": written.rows}

    run_stage(store, namespace, run_id, config.as_of, plan, body)
