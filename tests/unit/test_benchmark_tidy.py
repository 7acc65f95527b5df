"""A data folder of any writer, brought to what the stages read without a doubt."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys_spark.benchmark import columns
from recsys_spark.benchmark.folder import settings_for, sizes
from recsys_spark.benchmark.tidy import tidied
from recsys_spark.errors import InputError

JUST = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)  # 1,700,000,000 s


def _chunked(values: list[Any], kind: pa.DataType | None = None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, kind)])


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1_700_000_000, None], pa.int64()),
        ([1_700_000_000, None], pa.int32()),
        ([1_700_000_000_000, None], pa.int64()),
        ([1_700_000_000_000_000, None], pa.int64()),
        ([1_700_000_000_000_000_000, None], pa.int64()),
        ([1.7e9, float("nan")], pa.float64()),
        ([1.7e12, float("inf")], pa.float64()),
        ([Decimal("1700000000000"), None], pa.decimal128(20, 0)),
        (["1700000000", None], pa.string()),
        ([" 1700000000.0", None], pa.large_string()),
        ([1_700_000_000_000_000_000, None], pa.timestamp("ns")),
        ([1_700_000_000, None], pa.timestamp("s", "UTC")),
    ],
)
def test_times_of_any_unit_are_the_same_instant(values: list[Any], kind: pa.DataType) -> None:
    found = columns.times(_chunked(values, kind)).to_pylist()
    assert [None if t is None else t.replace(tzinfo=UTC) for t in found] == [JUST, None]


def test_distances_from_a_start_become_times_and_texts_and_days_stay() -> None:
    moved = columns.times(_chunked([0, 1, 90]))
    assert [t.timestamp() for t in moved.to_pylist()] == [86_400, 86_401, 86_490]
    texts = _chunked(["2023-01-01T00:00:00", "12"])
    assert columns.times(texts).equals(texts)
    days = _chunked([date(2023, 1, 1)])
    assert columns.times(days).equals(days)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([12.0, None, 1.5, 2.0**60], ["12", None, "1.5", "1152921504606846976"]),
        ([7, None], ["7", None]),
        ([Decimal("12"), None], ["12", None]),
        (["a b", "01"], ["a b", "01"]),
    ],
)
def test_ids_are_texts(values: list[Any], expected: list[Any]) -> None:
    assert columns.ids(_chunked(values)).to_pylist()[:3] == expected[:3]
    assert columns.ids(_chunked(["x", "y", "x"]).dictionary_encode()).to_pylist() == ["x", "y", "x"]


def test_places_begin_at_0_and_ratings_that_are_none_cost_no_event() -> None:
    assert columns.positions(_chunked([-1, 0, 4])).to_pylist() == [0, 1, 5]
    assert columns.positions(_chunked([3.0, None, 5.0])).to_pylist() == [3, None, 5]
    assert columns.positions(_chunked([1, 2])).to_pylist() == [1, 2]
    assert columns.positions(_chunked([0.5])).to_pylist() == [0.5]  # ingest says what is wrong with it
    assert columns.numbers(_chunked([1.5, float("nan"), float("inf"), None])).to_pylist() == [1.5, None, None, None]
    assert columns.numbers(_chunked(["4", "good", " 2.5"])).to_pylist() == [4.0, None, 2.5]
    assert columns.numbers(_chunked([True, False])).to_pylist() == [1.0, 0.0]
    assert columns.numbers(_chunked([[1]])).to_pylist() == [None]


def _write(folder: Path, events: dict[str, Any], items: dict[str, Any] | None = None) -> Path:
    folder.mkdir(parents=True)
    pd.DataFrame(events).to_parquet(folder / "events.parquet")
    if items is not None:
        pd.DataFrame(items).to_parquet(folder / "items.parquet")
    return folder


EVENTS = {"user_id": [1, 1, 2], "item_id": [7.0, None, 8.0], "ts": pd.to_datetime(["2023-01-01"] * 3), "TS": 1, "pos": [0, 1, 0]}


def test_only_columns_of_use_are_kept_under_names_that_can_be_used(tmp_path: Path) -> None:
    items = {
        "item_id": [7, 8],
        "a{b}": ["x", "y"],
        "available": ["no", "In stock"],
        "Title ": ["One", "Two"],
        "title": ["Eins", "Zwei"],
        "first_seen": ["?", "!"],
        "price": [1.0, 2.0],
    }
    folder = tidied(_write(tmp_path / "my data", EVENTS, items), tmp_path / "work")
    events, kept = pq.read_table(folder / "events.parquet"), pq.read_table(folder / "items.parquet")
    assert events.column_names == ["user_id", "item_id", "ts", "pos"]
    assert events.column("item_id").to_pylist() == ["7", None, "8"]
    assert events.schema.field("ts").type == pa.timestamp("us")
    assert kept.column_names == ["item_id", "a_b_", "available_text", "Title", "title_2", "first_seen_text"]
    config = settings_for(folder, tmp_path / "w", 0, {})
    assert config.ingest.events.columns == {"user_id": "user_id", "item_id": "item_id", "ts": "ts", "event_pos": "pos"}
    assert config.name.startswith("benchmark-my-data-")
    assert config.ingest.items is not None
    assert config.ingest.items.template == "{a_b_}. {available_text}. {Title}. {title_2}. {first_seen_text}"


def test_folders_of_files_and_categories_are_read_and_a_catalogue_without_rows_is_none(tmp_path: Path) -> None:
    data = tmp_path / "d"
    for day in (1, 2):
        part = data / "events.parquet" / f"day={day}"
        part.mkdir(parents=True)
        users = pd.Categorical(["a", "b"])
        pd.DataFrame({"user_id": users, "item_id": ["x", "y"], "ts": day}).to_parquet(part / "part-0.parquet")
    pq.write_table(pa.table({"item_id": pa.array([], pa.string()), "title": pa.array([], pa.string())}), data / "items.parquet")
    folder = tidied(data, tmp_path / "work")
    assert sizes(folder) == (2, 2, 4)
    assert not (folder / "items.parquet").exists()


def test_each_content_has_a_folder_of_its_own(tmp_path: Path) -> None:
    one, other = _write(tmp_path / "a" / "processed", EVENTS), _write(tmp_path / "b" / "processed", EVENTS | {"pos": [0, 2, 0]})
    same = _write(tmp_path / "c" / "processed", EVENTS)
    work = tmp_path / "work"
    assert tidied(one, work) == tidied(one, work) == tidied(same, work) != tidied(other, work)


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no events\.parquet"):
        tidied(tmp_path, tmp_path / "w")
    with pytest.raises(InputError, match="user_id, item_id, and pos or ts"):
        tidied(_write(tmp_path / "x", {"user_id": ["a"], "item_id": ["b"]}), tmp_path / "w")
    with pytest.raises(InputError, match="item_id, and any columns of text"):
        tidied(_write(tmp_path / "y", EVENTS, {"id": ["a"]}), tmp_path / "w")
    assert not list((tmp_path / "w").rglob("*.parquet"))
