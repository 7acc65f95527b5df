"""A copy of a data folder that the stages read without a doubt: texts for ids, times of one kind, only columns of use."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from recsys_spark.benchmark.columns import ids, numbers, positions, text_type, times
from recsys_spark.errors import InputError
from recsys_spark.log import get_logger

log = get_logger(__name__)
EVENTS, ITEMS = "events.parquet", "items.parquet"
_KEYS = ("user_id", "item_id")
_OURS = ("available", "first_seen")  # mapped by these names a column is no text to ingest
_FEW_KNOWN = 0.5


def tidied(data: Path, work: Path) -> Path:
    """The folder of the copy, ``work/data/<name>-<hash of its content>``; made once. Its name tells data sets from each other.

    ``data`` holds ``events.parquet`` and perhaps ``items.parquet``, each a file or a folder of files.

    Raises:
        InputError: no events.parquet, or it lacks user_id, item_id and one of ts and pos; items.parquet lacks item_id.
    """
    if not (data / EVENTS).exists():
        raise InputError(str(data), f"no {EVENTS}", "columns user_id, item_id, and pos or ts")
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", data.resolve().name).strip("-.") or "data"
    target = work / "data" / f"{name}-{_content(data)}"
    if target.exists():
        return target
    events = _events(data / EVENTS)
    items = _items(data / ITEMS) if (data / ITEMS).exists() else None
    scratch = target.with_name(target.name + ".partial")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    pq.write_table(events, scratch / EVENTS)
    if items is not None:
        _tell_of_unknown(events, items)
        pq.write_table(items, scratch / ITEMS)
    scratch.rename(target)
    return target


def _content(data: Path) -> str:
    digest = hashlib.sha256()
    for place in (data / EVENTS, data / ITEMS):
        for file in sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else [place]:
            if file.exists():
                digest.update(str(file.relative_to(data)).encode())
                with file.open("rb") as opened:
                    digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()[:12]


def _read(place: Path, wanted: Any) -> pa.Table:
    dataset = ds.dataset(place, format="parquet", partitioning="hive")
    return dataset.to_table(columns=[name for name in dataset.schema.names if wanted(dataset.schema.field(name))])


def _events(place: Path) -> pa.Table:
    names = set(ds.dataset(place, format="parquet", partitioning="hive").schema.names)
    if not set(_KEYS) <= names or not {"ts", "pos"} & names:
        raise InputError(str(place), f"columns {sorted(names)}", "user_id, item_id, and pos or ts")
    table = _read(place, lambda field: field.name in (*_KEYS, "ts", "pos", "rating"))
    made = {name: ids(table.column(name)) for name in _KEYS}
    for name, kind in (("ts", times), ("pos", positions), ("rating", numbers)):
        if name in names:
            made[name] = kind(table.column(name))
    return pa.table(made)


def _items(place: Path) -> pa.Table | None:
    """``item_id`` and the columns with words, under names that a template can hold; None without a row."""
    table = _read(place, lambda field: field.name == "item_id" or text_type(field.type) is not None)
    if "item_id" not in table.column_names:
        raise InputError(str(place), f"columns {sorted(table.column_names)}", "item_id, and any columns of text")
    made = {"item_id": ids(table.column("item_id"))}
    for number, name in enumerate(table.column_names):
        if name != "item_id":
            made[_plain(name, set(made))] = table.column(number).cast(text_type(table.schema.field(number).type))
    return pa.table(made) if len(table) else None


def _plain(name: str, taken: set[str]) -> str:
    plain = re.sub(r"\W", "_", name.strip()) or "words"
    if plain in _OURS:
        plain += "_text"
    known, tried, number = {other.casefold() for other in taken}, plain, 2
    while tried.casefold() in known:
        tried, number = f"{plain}_{number}", number + 1
    return tried


def _tell_of_unknown(events: pa.Table, items: pa.Table) -> None:
    met = pc.unique(events.column("item_id"))
    known = pc.sum(pc.is_in(met, value_set=items.column("item_id").combine_chunks())).as_py() or 0
    if known < _FEW_KNOWN * len(met):
        log.warning("most items of events are not in items.parquet: are ids written alike?", items=len(met), known=known)
