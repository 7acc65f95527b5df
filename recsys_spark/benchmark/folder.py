"""A configuration from a data folder: columns map themselves, and sizes follow from what lies there."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys_spark.benchmark.columns import text_type
from recsys_spark.config import Config, parse_config
from recsys_spark.errors import InputError

AS_OF = datetime(2100, 1, 1, tzinfo=UTC)  # after every event: the holdout does the cutting
_SAMPLED_TEXTS = 2_000
_TOKENS_PER_WORD = 1.5
_TRAIN_MINUTES = 90  # any folder gives a row within an evening; of those in the README none takes as long
ALL_USERS = 1_000_000_000  # are measured: published rows know no sample of them
_NO_TEXT = {"item_id"}
_LINKS = ("http://", "https://", "www.")
_MOST_SECONDS = 10**11  # the year 5138


def settings_for(data: Path, warehouse: Path, seed: int, overrides: dict[str, Any]) -> Config:
    """A configuration from the folder's columns: ``events.parquet`` and, where there is one, ``items.parquet``.

    What is not set follows from the data: the longest texts that are read, and the batch. Sections of ``overrides`` are
    laid over it key by key.

    Raises:
        InputError: no events.parquet, or it lacks user_id, item_id and one of ts and pos.
    """
    events = data / "events.parquet"
    if not events.exists():
        raise InputError(str(data), "no events.parquet", "columns user_id, item_id, and pos or ts")
    ingest: dict[str, Any] = {
        "events": {
            "path": str(events),
            "format": "parquet",
            "columns": _event_columns(events),
            "time_format": _time_format(events),
        },
        "robots": {"max_events_per_minute": None, "max_z_score": None},
    }
    items = data / "items.parquet"
    texts = _text_columns(items) if items.exists() else []
    if items.exists():
        columns = {"item_id": "item_id"} | {name: name for name in texts}
        ingest["items"] = {"path": str(items), "format": "parquet", "columns": columns, "template": _template(texts)}
    base = {
        "name": f"benchmark-{data.name}",
        "as_of": AS_OF,
        "warehouse": str(warehouse),
        "seed": 42 + seed,
        "ingest": ingest,
        "encoder": {"max_tokens": _max_tokens(items, texts)},
        "train": {"batch_size": _batch_size(sizes(data)[0]), "max_minutes": _TRAIN_MINUTES},
        "recommend": {"k": 20, "history_items": 50, **({} if _has_times(events) else {"popularity_half_life_days": 0})},
        "evaluate": {"split": "leave_one_out", "max_users": ALL_USERS},
    }
    return parse_config(laid_over(base, overrides), "benchmark")


def sizes(data: Path) -> tuple[int, int, int]:
    """Users, items with events, and events of the folder."""
    table: Any = pq.read_table(data / "events.parquet", columns=["user_id", "item_id"])
    users, items = (pc.count_distinct(table.column(name)).as_py() for name in ("user_id", "item_id"))
    return users, items, table.num_rows


def _event_columns(events: Path) -> dict[str, str]:
    names = set(pq.read_schema(events).names)
    if not {"user_id", "item_id"} <= names or not {"ts", "pos"} & names:
        raise InputError(str(events), f"columns {sorted(names)}", "user_id, item_id, and pos or ts")
    given = {"ts": "ts", "event_pos": "pos", "value": "rating"}  # at equal times places decide
    return {"user_id": "user_id", "item_id": "item_id"} | {ours: name for ours, name in given.items() if name in names}


def _has_times(events: Path) -> bool:
    """Whether events have times of their own; those that ingest gives to mere places say nothing of what was popular when."""
    return "ts" in pq.read_schema(events).names


def _time_format(events: Path) -> str:
    """How ``ts`` is written: text is ISO 8601; numbers too large for seconds are milliseconds."""
    if not _has_times(events):
        return "epoch_seconds"
    schema = pq.read_schema(events)
    kind = schema.field("ts").type
    if text_type(kind) == pa.string():
        return "iso"
    if not pa.types.is_integer(kind) and not pa.types.is_floating(kind):
        return "epoch_seconds"  # a timestamp or a date, which says itself what it is
    largest = pc.max(pq.read_table(events, columns=["ts"]).column("ts")).as_py()
    return "epoch_millis" if largest is not None and largest > _MOST_SECONDS else "epoch_seconds"


def _text_columns(items: Path) -> list[str]:
    """Columns of text or lists of texts in the file's order, without those of links; one that only joins the others (called
    text) stands for all."""
    schema = pq.read_schema(items)
    names = [f.name for f in schema if text_type(f.type) is not None and f.name not in _NO_TEXT]
    if "text" in names:
        return ["text"]
    rows = _sampled(items, names)
    return [name for name in names if not _are_links([_words(row[name]) for row in rows])]


def _sampled(items: Path, names: list[str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(items, columns=names).slice(0, _SAMPLED_TEXTS).to_pylist()
    return rows


def _words(value: str | list[str] | None) -> str:
    return value or "" if isinstance(value, str | None) else ", ".join(filter(None, value))


def _are_links(values: list[str]) -> bool:
    """Whether most of the filled ones are addresses of pages or pictures, whose letters say nothing."""
    filled = [value for value in values if value.strip()]
    return 2 * sum(value.lstrip().startswith(_LINKS) for value in filled) > len(filled)


def _template(texts: list[str]) -> str:
    return ". ".join(f"{{{name}}}" for name in texts)


def _max_tokens(items: Path, texts: list[str]) -> int:
    """Enough for nine texts of ten, within 32 and 256: encoding time grows with it."""
    if not texts:
        return 32
    words = sorted(sum(len(_words(row[name]).split()) for name in texts) for row in _sampled(items, texts))
    nine_of_ten = words[int(0.9 * (len(words) - 1))] if words else 0
    return int(min(256, max(32, 32 * math.ceil(_TOKENS_PER_WORD * nine_of_ten / 32))))


def _batch_size(num_users: int) -> int:
    """About a hundred batches in an epoch, within 64 and 256 sequences: a step costs the whole catalogue whatever it holds."""
    return 64 if num_users < 6_400 else 128 if num_users < 16_000 else 256


def laid_over(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``base`` with the keys of ``over``, section by section."""
    found = dict(base)
    for name, value in over.items():
        section = found.get(name)
        found[name] = laid_over(section, value) if isinstance(section, dict) and isinstance(value, dict) else value
    return found
