"""The folder a log is written into: refused where something would be lost, and the configuration that reads it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from recsys_spark.errors import ConfigError
from recsys_spark.synthetic.choices import EVENT_TYPES
from recsys_spark.synthetic.settings import SyntheticSettings

EVENTS, ITEMS, GRAPH, COUNTS, CONFIG, WAREHOUSE = "events", "items", "graph", "synthetic.json", "config.toml", "warehouse"
_WEIGHTS = dict(zip(EVENT_TYPES, (1.0, 3.0, 5.0), strict=True))
_COLUMNS = ("event_id", "user_id", "item_id", "event_type", "ts", "value")  # mapped; device is context
_HELD_OUT_DAYS = 7.0  # for the test, and as many for validation; of a short log a quarter each

_CONFIG = """\
# recsys-spark run --config {config}
# A synthetic log, seed {seed}; {counts} beside this file tells its settings and flaws.
name = "synthetic"
as_of = {end}T00:00:00Z # the end of the log
warehouse = {warehouse}
seed = {seed}

[ingest.events]
path = {events}
format = "{format}"
columns = {{ {columns} }}
event_weights = {{ {weights} }}
context = ["device"]

[ingest.items]
path = {items}
format = "{format}"
columns = {{ item_id = "item_id", title = "title", category = "category", first_seen = "first_day" }}
template = "{{title}}. {{category}}"
{graph}
[evaluate]
holdout_days = {held_out}
validation_days = {held_out}
"""
_GRAPH = """
[ingest.knowledge_graph]
path = {graph}
format = "{format}"
columns = {{ head = "head", relation = "relation", tail = "tail" }}
"""


def check(folder: Path, overwrite: bool) -> None:
    """Refuse a folder before anything starts.

    Raises:
        ConfigError: it is a file, or holds anything and ``overwrite`` is false, or holds the warehouse of a night: tables
            made from the earlier log would take the new one for more of it.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError("--out", f"{folder} is a file", "a new or empty folder", "choose another")
    if (folder / WAREHOUSE).exists():
        do = "remove it, or choose another folder"
        raise ConfigError("--out", f"{folder / WAREHOUSE} holds tables made from an earlier log", "a folder without", do)
    if folder.exists() and any(folder.iterdir()) and not overwrite:
        raise ConfigError("--out", f"{folder} is not empty", "a new or empty folder", "choose another, or add --overwrite")


def prepare(folder: Path, overwrite: bool) -> None:
    """Make the folder, empty of an earlier log; what else lies there stays.

    Raises:
        ConfigError: as ``check`` does.
    """
    check(folder, overwrite)
    for name in (CONFIG, COUNTS):  # first: where a configuration lies, the log is whole
        (folder / name).unlink(missing_ok=True)
    for name in (EVENTS, ITEMS, GRAPH):
        if (folder / name).exists():
            shutil.rmtree(folder / name)
    folder.mkdir(parents=True, exist_ok=True)


def config_text(folder: Path, settings: SyntheticSettings) -> str:
    """A configuration that ingests exactly this log and evaluates on its last days."""
    held_out = min(_HELD_OUT_DAYS, settings.days / 4)

    def quoted(name: str) -> str:
        return json.dumps(str(folder / name), ensure_ascii=False)  # a TOML string, too

    return _CONFIG.format(
        config=folder / CONFIG,
        seed=settings.seed,
        counts=COUNTS,
        end=settings.end,
        warehouse=quoted(WAREHOUSE),
        events=quoted(EVENTS),
        items=quoted(ITEMS),
        format=settings.format,
        columns=", ".join(f'{name} = "{name}"' for name in _COLUMNS),
        weights=", ".join(f"{kind} = {weight}" for kind, weight in _WEIGHTS.items()),
        graph=_GRAPH.format(graph=quoted(GRAPH), format=settings.format) if settings.graph else "",
        held_out=held_out,
    )
