"""What a night looks like on a terminal: metric table, lists with reasons, and where everything lies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from rich.console import Console
from rich.table import Table

from recsys_spark.errors import InputError
from recsys_spark.night import Night
from recsys_spark.publish.forget import Forgotten
from recsys_spark.publish.prune import Leftovers
from recsys_spark.publish.stage import LIVE, current
from recsys_spark.tables.store import Store

console = Console(markup=False)  # titles are no markup
SHOWN = (("ndcg", 10), ("recall", 10), ("hit_rate", 10), ("mrr", 10))


@dataclass
class Shown:
    """What was printed while it was recorded."""

    text: str = ""


@contextmanager
def recorded() -> Iterator[Shown]:
    """Keep what is printed meanwhile: a rerun that finds its work done prints it again."""
    console.record, shown = True, Shown()
    try:
        yield shown
        shown.text = console.export_text()
    finally:
        console.record = False


def night_summary(night: Night, report: Path) -> None:
    """Metrics of every system on the same users, and the verdict of the gate."""
    rows = night.store.read("metrics", night.eval_namespace).where("segment = 'all'").collect()
    found = {(r["system"], r["name"], r["k"]): r for r in rows}
    table = Table("system", *[f"{name}@{k}" for name, k in SHOWN], title="held-out metrics, 95% interval over users")
    for system in dict.fromkeys(r["system"] for r in rows):
        table.add_row(system, *[_figure(found.get((system, name, k))) for name, k in SHOWN])
    console.print(table)
    console.print(f"gate: {night.gate().reason}")
    console.print(f"report: {report}")


def demo(night: Night, report: Path) -> None:
    """The summary, one user's list, one item's neighbours, and where everything lies."""
    night_summary(night, report)
    user_id, item_id = samples(night)
    user_list(night.store, user_id, 10)
    item_list(night.store, item_id, 10)
    places(night, report)


def leftovers(found: Leftovers, dry_run: bool) -> None:
    """What a prune keeps and removes."""
    kept = ", ".join(f"{as_of:%Y-%m-%d %H:%M}Z" for as_of, _ in found.kept)
    console.print(f"can still be returned to: {kept}")
    if found.nothing:
        console.print("nothing older is left")
        return
    table = Table("where", "what", title="would go" if dry_run else "gone")
    for name, nights in found.slices.items():
        table.add_row(f"live/{name}", f"lists of {len(nights)} nights")
    for namespace in found.namespaces:
        table.add_row(namespace, "evaluation and training (its metrics and runs stay)")
    for model in found.models:
        table.add_row(f"model {model.model_name}", f"version {model.version}, its vectors and artifacts")
    console.print(table)


def forgotten(found: Forgotten, dry_run: bool) -> None:
    """What is kept no longer of users who asked for it."""
    console.print(f"{found.known} of {found.asked} users were known")
    table = Table("where", "what", title="would go" if dry_run else "gone")
    for name, rows in found.rows.items():
        table.add_row(name, f"{rows:,} rows")
    for namespace in found.namespaces:
        table.add_row(namespace, "evaluation and training (its metrics and runs stay)")
    for report in found.reports:
        table.add_row("report", report.name)
    if table.row_count:
        console.print(table)
    if not dry_run:
        console.print("counts and models follow with the next night; older versions of tables hold the rows until they are")
        console.print("vacuumed: by prune, once Delta's retention is over, or now, by forget --purge")


def _figure(row: Any) -> str:
    if row is None:
        return ""
    interval = "" if row["low"] is None else f" [{row['low']:.4f}, {row['high']:.4f}]"
    return f"{row['value']:.4f}{interval}"


def _published(store: Store, table: str) -> DataFrame:
    """Rows of the night that readers see.

    Raises:
        InputError: no night has been published.
    """
    now = current(store)
    if now is None:
        raise InputError("published", "no night yet", do="run 'recsys-spark run --config ...' first")
    return store.read(table, LIVE).where((F.col("run_id") == now["run_id"]) & (F.col("as_of") == F.lit(now["as_of"])))


def _titles(store: Store) -> DataFrame:
    return store.read("items", LIVE).select("item_id", F.coalesce("title", "item_id").alias("title"))


def user_list(store: Store, user_id: str, k: int) -> None:
    """One user's published list with titles and reasons; for an unknown user the fallback list."""
    rows = _published(store, "recommendations").where((F.col("user_id") == user_id) & (F.col("rank") <= k))
    found = rows.join(_titles(store), "item_id").orderBy("rank").collect()
    if not found:
        console.print(f"user '{user_id}' has no list of their own; the fallback list:")
        fallback = _published(store, "fallback_recommendations").where(F.col("context") == "").where(F.col("rank") <= k)
        found = fallback.join(_titles(store), "item_id").orderBy("rank").collect()
    table = Table("rank", "item", "title", "score", "because", title=f"recommendations for user {user_id}")
    for row in found:
        why = _reasons(row["reasons"]) if "reasons" in row.asDict() else "popular"
        table.add_row(str(row["rank"]), row["item_id"], row["title"], f"{row['score']:.3f}", why)
    console.print(table)
    _near_users(store, user_id, k)


def _near_users(store: Store, user_id: str, k: int) -> None:
    """One line of the users most like this one, where such lists were published."""
    if not store.exists("user_neighbours", LIVE):
        return
    rows = _published(store, "user_neighbours").where((F.col("user_id") == user_id) & (F.col("rank") <= k))
    found = rows.orderBy("rank").collect()
    if found:
        near = ", ".join(f"{row['neighbour_id']} ({row['score']:.3f})" for row in found)
        console.print(f"users like {user_id}: {near}", soft_wrap=True)


def item_list(store: Store, item_id: str, k: int) -> None:
    """One item's published neighbours.

    Raises:
        InputError: no neighbours were published for this id.
    """
    rows = _published(store, "item_neighbours").where((F.col("item_id") == item_id) & (F.col("rank") <= k)).drop("item_id")
    found = rows.join(_titles(store).withColumnRenamed("item_id", "neighbour_id"), "neighbour_id").orderBy("rank").collect()
    if not found:
        raise InputError(f"item '{item_id}'", "no published neighbours", "an item_id of the items table")
    table = Table("rank", "item", "title", "score", "because", title=f"similar to item {item_id} ({_title(store, item_id)})")
    for row in found:
        table.add_row(str(row["rank"]), row["neighbour_id"], row["title"], f"{row['score']:.3f}", _reasons(row["reasons"]))
    console.print(table)


def _title(store: Store, item_id: str) -> str:
    row = _titles(store).where(F.col("item_id") == item_id).first()
    return row["title"] if row else item_id


def _reasons(reasons: Any) -> str:
    return "; ".join(f"{r['text']} ({r['contribution']:.0%})" for r in reasons)


def samples(night: Night) -> tuple[str, str]:
    """A user with a list and the most popular item, to show."""
    user = _published(night.store, "recommendations").orderBy("user_id").first()
    item = night.live.events("history").groupBy("item_id").count().orderBy(F.desc("count"), "item_id").first()
    return (user["user_id"] if user else "", item["item_id"] if item else "")


def places(night: Night, report: Path) -> None:
    """Where the tables, the model and the report are."""
    config = night.config
    console.print(f"tables:  {Path(config.warehouse).absolute()}")
    console.print(f"model:   models:/{config.model_name}@champion at {config.tracking_uri}")
    console.print(f"report:  {report.absolute()}")
