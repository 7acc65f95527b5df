"""The command ``recsys-spark synthetic``: its options are the settings of a synthetic log."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from recsys_spark.config.serving import SparkSettings
from recsys_spark.synthetic.settings import LogFormat, SyntheticSettings, clean_folder, parse_settings

_DEFAULT = SyntheticSettings()


def _option(text: str) -> Any:
    return typer.Option(help=text)


def synthetic(  # noqa: PLR0913  # one argument per option; they are read together, from the context
    context: typer.Context,
    out: Annotated[str, _option("folder to write into")],
    events: Annotated[int, _option("events of people, expected")] = _DEFAULT.events,
    items: Annotated[int, _option("items in the catalogue")] = _DEFAULT.items,
    users: Annotated[int, _option("people")] = _DEFAULT.users,
    seed: Annotated[int, _option("same settings and seed: same rows, on any number of cores")] = _DEFAULT.seed,
    start: Annotated[str, _option("first day, UTC")] = _DEFAULT.start.isoformat(),
    days: Annotated[int, _option("days that the log spans")] = _DEFAULT.days,
    zipf: Annotated[float, _option("popularity of an item is rank^-zipf")] = _DEFAULT.zipf,
    topics: Annotated[int, _option("topics of items, each with its own words")] = _DEFAULT.topics,
    new_items: Annotated[float, _option("share of items that arrive after the first day")] = _DEFAULT.new_items,
    drift: Annotated[float, _option("topics swing in popularity by exp(-drift) .. exp(drift)")] = _DEFAULT.drift,
    activity_sigma: Annotated[float, _option("sigma of the log-normal events per user")] = _DEFAULT.activity_sigma,
    session_events: Annotated[float, _option("mean events of a session")] = _DEFAULT.session_events,
    session_minutes: Annotated[float, _option("mean length of a session")] = _DEFAULT.session_minutes,
    preferred: Annotated[float, _option("share of sessions on a topic that the user prefers")] = _DEFAULT.preferred,
    explore: Annotated[float, _option("share of views outside the session's topic")] = _DEFAULT.explore,
    next_item: Annotated[float, _option("share of events that go on to the next item of a topic")] = _DEFAULT.next_item,
    cart: Annotated[float, _option("share of views that lead to a cart event")] = _DEFAULT.cart,
    purchase: Annotated[float, _option("share of cart events that lead to a purchase")] = _DEFAULT.purchase,
    duplicates: Annotated[float, _option("share of rows written twice")] = _DEFAULT.duplicates,
    robots: Annotated[float, _option("robots per user, beside the users")] = _DEFAULT.robots,
    bad_rows: Annotated[float, _option("share of rows spoilt")] = _DEFAULT.bad_rows,
    format: Annotated[LogFormat, _option("of all files")] = _DEFAULT.format,
    graph: Annotated[bool, _option("write a knowledge graph, too")] = _DEFAULT.graph,
    files: Annotated[int | None, _option("files of events; default: one per million, at least 8")] = None,
    master: Annotated[str | None, _option("Spark master, e.g. local[*]; default: what spark-submit says, else local[*]")] = None,
    overwrite: Annotated[bool, _option("replace an earlier log in the folder")] = False,
) -> None:
    """Write a seeded synthetic log of any size, with counted flaws, and the configuration that runs on it.

    Example: recsys-spark synthetic --out work/synthetic --events 1000000 --items 20000 --users 50000
    """
    settings = parse_settings({name: context.params[name] for name in SyntheticSettings.model_fields})
    folder = clean_folder(out)
    from recsys_spark.cli.doctor import require_java
    from recsys_spark.session import build_session
    from recsys_spark.synthetic.folder import CONFIG, check
    from recsys_spark.synthetic.write import write_log

    check(folder, overwrite)
    require_java()
    spark = build_session(SparkSettings(master=master), "recsys-spark synthetic")
    try:
        figures = write_log(spark, settings, folder, overwrite)
    finally:
        spark.stop()
    typer.echo(f"next: recsys-spark run --config {folder / CONFIG}")
    typer.echo(json.dumps(figures))
