"""Reading and judging raw rows: strange ids survive, every reason is collected, times and zones are right."""

from __future__ import annotations

import csv
import gzip
import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.config.ingest import EventSource, ItemSource, Source, UserSource
from recsys_spark.errors import ConfigError, InputError
from recsys_spark.ingest.events import needed_columns, typed_events
from recsys_spark.ingest.files import list_files
from recsys_spark.ingest.intake import Intake
from recsys_spark.ingest.items import typed_items
from recsys_spark.ingest.pseudonyms import id_key, pseudonym, with_key
from recsys_spark.ingest.quality import OPEN_QUOTE, REASONS, ROW
from recsys_spark.ingest.read import read_source
from recsys_spark.ingest.rownumbers import ROW_NUMBER, SOURCE_HASH
from recsys_spark.ingest.times import check_time_settings
from recsys_spark.ingest.users import typed_users

NOW = datetime(2024, 1, 10, tzinfo=UTC)


def judge(spark: SparkSession, source: EventSource, key: bytes | None = None) -> DataFrame:
    raw = read(spark, source, needed_columns(source))
    return typed_events(raw, source, "[ingest.events]", NOW, key)


def read(spark: SparkSession, source: Source, needed: set[str]) -> DataFrame:
    raw = read_source(spark, source, list_files(spark, source, "[ingest.events]"), needed)
    assert raw is not None
    return raw


def log(path: Path, rows: list[tuple[Any, ...]], header: tuple[str, ...] = ("u", "i", "t", "v", "k")) -> Path:
    with path.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([header[: len(rows[0])], *rows])
    return path


def events(path: Path | str, **settings: Any) -> EventSource:
    columns = {"user_id": "u", "item_id": "i", "ts": "t", "value": "v", "event_type": "k"}
    return EventSource(path=str(path), columns=settings.pop("columns", columns), **settings)


def test_every_bad_row_has_all_its_reasons(spark: SparkSession, tmp_path: Path) -> None:
    late = (NOW + timedelta(days=1, seconds=1)).isoformat()
    soon = (NOW + timedelta(hours=23)).isoformat()
    cases: list[tuple[tuple[str, ...], list[str]]] = [
        (("u", "i", "2024-01-01T00:00:00", "1", "view"), []),
        (
            ("", " ", "", "x", "nothing"),
            ["missing user_id", "missing item_id", "missing ts", "value is not a number", "unknown event_type"],
        ),
        (("u", "i", "1970-01-01", "", "view"), ["ts is 0"]),
        (("u", "i", "1970-01-02", "", "view"), []),
        (("u", "i", "1969-12-31", "", "view"), ["ts is before 1970"]),
        (("u", "i", late, "", "view"), ["ts is more than a day in the future"]),
        (("u", "i", soon, "", ""), []),
        (("u", "i", "12:30", "NaN", "buy"), ["ts is not a time", "value is not finite"]),
        (("u", "i", "2024-13-01", "1e400", "buy"), ["ts is not a time", "value is not finite"]),
        (("u", "i", "2024-01-01", "3d", "buy"), ["value is not a number"]),
    ]
    path = log(tmp_path / "log.csv", [row for row, _ in cases])
    with path.open("a") as out:
        out.write("u,i\n")
    rows = judge(spark, events(path, event_weights={"view": 1.0, "buy": 4.0})).orderBy(ROW_NUMBER).collect()
    assert [row[ROW_NUMBER] for row in rows] == list(range(len(cases) + 1))
    for row, (_, reasons) in zip(rows, cases, strict=False):
        assert row[REASONS] == reasons
        assert (row[ROW] is None) == (not reasons)
    assert rows[-1][REASONS][0] == "malformed row"
    assert '"k":"nothing"' in rows[1][ROW]


def test_numbers_and_times_are_judged_as_their_texts_would_be(spark: SparkSession, tmp_path: Path) -> None:
    """A Parquet log of numbers and one of the texts that Spark makes of them; two columns of context, of which some are null."""
    typed = spark.sql(
        "SELECT u, 'i' AS i, timestamp_seconds(t) AS t, cast(v AS double) AS v, cast(v AS float) AS f, p, a, nullif(u, 2) AS b "
        "FROM VALUES (1, 1704000000.5D, '0.1', 5L, 'x'), (2, null, null, null, null), (3, 0D, 'NaN', -1L, 'y'), "
        "(null, 1704000001D, '-1e300', 9007199254740993L, 'z'), (4, 99999999999D, 'Infinity', 300000000000L, '') t(u, t, v, p, a)"
    )
    typed.coalesce(1).write.parquet(str(tmp_path / "typed"))
    typed.select([F.col(name).cast("string") for name in typed.columns]).coalesce(1).write.parquet(str(tmp_path / "texts"))
    for value, missing in (("v", {}), ("f", {}), ("v", {"value": "7", "event_pos": "1"}), ("v", {"value": "reject"})):
        columns = {"user_id": "u", "item_id": "i", "ts": "t", "value": value, "event_pos": "p", "event_id": "b"}
        settings = {"columns": columns, "missing": missing, "format": "parquet", "context": ["a", "b"], "like_at_least": 0.1}
        rows = [
            judge(spark, events(tmp_path / name, **settings)).drop(SOURCE_HASH, ROW).orderBy(ROW_NUMBER).collect()
            for name in ("typed", "texts")
        ]
        assert str(rows[0]) == str(rows[1])  # as text: NaN differs from itself
        assert len({tuple(row[REASONS]) for row in rows[0]}) == 5
        assert [row["context"] for row in rows[0]][:3] == [{"a": "x", "b": "1"}, {}, {"a": "y", "b": "3"}]


def test_strange_ids_survive_and_rows_keep_the_order_of_the_file(spark: SparkSession, tmp_path: Path) -> None:
    ids = ['say "hi"', "a/b\\c", "two\nlines", "😀", "مرحبا", "a,b", " padded ", "it's", "#1"]
    path = log(tmp_path / "a b.csv", [(name, name + "!", 1_000 + n, n, "x") for n, name in enumerate(ids)])
    rows = judge(spark, events(path, time_format="epoch_seconds")).orderBy(ROW_NUMBER).collect()
    assert [row["user_id"] for row in rows] == ids
    assert [row["item_id"] for row in rows] == [name + "!" for name in ids]
    assert [row["value"] for row in rows] == [float(n) for n in range(len(ids))]


def test_row_numbers_over_several_splits_and_files(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys_spark.ingest.read.WHOLE_FILE_BYTES", 0)
    for name, count in (("b.csv", 300), ("a.csv", 200)):
        log(tmp_path / name, [(f"{name}{n}", n) for n in range(count)])
    with gzip.open(tmp_path / "c.csv.gz", "wt") as out:
        out.write("u,i\n" + "".join(f"c{n},{n}\n" for n in range(50)))
    spark.conf.set("spark.sql.files.maxPartitionBytes", "700")
    spark.conf.set("spark.sql.files.openCostInBytes", "1")
    try:
        raw = read(spark, Source(path=str(tmp_path), columns={"user_id": "u"}), {"u"})
        assert raw.where(F.col("i").cast("long") != F.col(ROW_NUMBER)).count() == 0
        assert sorted(r["count"] for r in raw.groupBy(SOURCE_HASH).count().collect()) == [50, 200, 300]
    finally:
        spark.conf.unset("spark.sql.files.maxPartitionBytes")
        spark.conf.unset("spark.sql.files.openCostInBytes")


@pytest.mark.parametrize(
    ("text", "settings", "expected"),
    [
        ("2024-01-01 12:00:00", {"time_zone": "Europe/Berlin"}, "2024-01-01T11:00:00"),
        ("2023-07-01T12:00:00", {"time_zone": "Europe/Berlin"}, "2023-07-01T10:00:00"),
        ("2024-01-01T12:00:00+05:00", {"time_zone": "Europe/Berlin"}, "2024-01-01T07:00:00"),
        ("2024-01-01T12:00:00Z", {"time_zone": "Europe/Berlin"}, "2024-01-01T12:00:00"),
        ("2024-01-01", {}, "2024-01-01T00:00:00"),
        ("881250949", {"time_format": "epoch_seconds"}, "1997-12-04T15:55:49"),
        ("881250949.5", {"time_format": "epoch_seconds"}, "1997-12-04T15:55:49.500000"),
        ("881250949001", {"time_format": "epoch_millis"}, "1997-12-04T15:55:49.001000"),
        ("31.12.2023 23:30", {"time_format": "dd.MM.yyyy HH:mm", "time_zone": "America/New_York"}, "2024-01-01T04:30:00"),
    ],
)
def test_times(spark: SparkSession, tmp_path: Path, text: str, settings: dict[str, str], expected: str) -> None:
    path = log(tmp_path / "log.csv", [("u", "i", text, "1", "x")])
    rows = judge(spark, events(path, **settings)).select(F.unix_micros("ts").alias("micros"), REASONS).collect()
    assert rows[0][REASONS] == []
    assert rows[0]["micros"] == round(datetime.fromisoformat(expected + "+00:00").timestamp() * 1e6)


def test_labels_weights_defaults_and_json_lines(spark: SparkSession, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    lines = [f'{{"u": {n}, "i": "i", "t": 1000, "v": {v}, "page": "home"}}' for n, v in enumerate((5, 3, 1))]
    path.write_text("\n".join([*lines, '{"u": 3, "i": "i", "t": 1000, "k": "buy"}', "no json"]) + "\n")
    source = events(
        path,
        format="jsonl",
        time_format="epoch_seconds",
        like_at_least=4.0,
        dislike_at_most=2.0,
        event_weights={"view": 1.0, "buy": 3.0},
        missing={"value": "4.5"},
        context=["page"],
    )
    rows = judge(spark, source).orderBy(ROW_NUMBER).collect()
    assert [(r["user_id"], r["label"], r["weight"], r["value"]) for r in rows[:4]] == [
        ("0", 1, 1.0, 5.0),
        ("1", 0, 1.0, 3.0),
        ("2", -1, 1.0, 1.0),
        ("3", 1, 3.0, 4.5),
    ]
    assert rows[0]["context"] == {"page": "home"}
    assert "malformed row" in rows[4][REASONS]


def test_pseudonyms_are_hmac_sha256_and_the_plan_does_not_show_the_key(spark: SparkSession) -> None:
    names = ["u1", "", "é😀", None]
    for key in (b"short", b"k" * 200):
        frame = with_key(spark.createDataFrame([(n,) for n in names], "u string"), key)
        frame = frame.select(pseudonym(F.col("u"), key).alias("p"))
        expected = [None if n is None else hmac.new(key, n.encode(), hashlib.sha256).hexdigest() for n in names]
        assert [row["p"] for row in frame.collect()] == expected
        plan = frame._jdf.queryExecution().toString()
        padding = bytes(b ^ 0x36 for b in key[:64])
        assert key.decode() not in plan
        assert padding.hex()[:20].upper() not in plan.upper()


def test_with_an_id_key_bad_rows_keep_lengths_only(spark: SparkSession, tmp_path: Path) -> None:
    path = log(tmp_path / "log.csv", [("secret-user", "i", "never", "1", "x")])
    row = judge(spark, events(path), b"key").collect()[0]
    assert row[ROW] == '{"u":11,"i":1,"t":5,"v":1,"k":1}'
    assert row["user_id"] == hmac.new(b"key", b"secret-user", hashlib.sha256).hexdigest()


def test_errors_name_the_place_and_the_way_out(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = log(tmp_path / "log.csv", [("u", "i", "2024-01-01", "1", "x")], header=("user", "i", "t", "v", "k"))
    with pytest.raises(InputError, match=r"no column 'usr'; columns found: user, i, t, v, k; did you mean 'user'\?"):
        judge(spark, events(path, columns={"user_id": "usr", "item_id": "i", "ts": "t"}))
    with pytest.raises(InputError, match=r"no file at .*nowhere.csv; expected an existing file"):
        list_files(spark, events(tmp_path / "nowhere.csv"), "[ingest.events]")
    with pytest.raises(InputError, match="no Delta table at"):
        list_files(spark, events(tmp_path / "nowhere", format="delta"), "[ingest.events]")
    with pytest.raises(ConfigError, match="'vlue' is not mapped; did you mean 'value'"):
        judge(spark, events(path, columns={"user_id": "user", "item_id": "i", "ts": "t", "value": "v"}, missing={"vlue": "1"}))
    with pytest.raises(ConfigError, match="time_zone: 'Europe/Nowhere'"):
        check_time_settings(spark, events(path, time_zone="Europe/Nowhere"), "[ingest.events]")
    with pytest.raises(ConfigError, match="time_format: 'bbbb'"):
        check_time_settings(spark, events(path, time_format="bbbb"), "[ingest.events]")
    monkeypatch.delenv("RECSYS_TEST_KEY", raising=False)
    with pytest.raises(ConfigError, match="environment variable RECSYS_TEST_KEY is not set"):
        id_key("RECSYS_TEST_KEY")


def test_a_column_of_the_wrong_type_is_named(spark: SparkSession, tmp_path: Path) -> None:
    spark.sql("SELECT array('u') AS u, 'i' AS i, current_timestamp() AS t").write.parquet(str(tmp_path / "log"))
    source = events(tmp_path / "log", format="parquet", columns={"user_id": "u", "item_id": "i", "ts": "t"})
    with pytest.raises(InputError, match=r"column 'u' is array<string>; expected text, a number or a time"):
        judge(spark, source)


def test_words_and_attributes_may_be_lists_and_ids_may_not(spark: SparkSession, tmp_path: Path) -> None:
    spark.sql(
        "SELECT * FROM VALUES ('a', array('Red ', null, ' ', 'teapot'), array('x', 'y')), ('b', null, array()),"
        " ('c', array(), null) AS t(id, words, tags)"
    ).write.parquet(str(tmp_path / "rows"))
    place = {"path": str(tmp_path / "rows"), "format": "parquet"}
    settings = {"columns": {"item_id": "id", "title": "words"}, "template": "{title}! {tags}", "attributes": ["tags", "title"]}
    items = ItemSource(**place, **settings, split_attributes="|")
    rows = {r["item_id"]: r for r in typed_items(read(spark, items, set()), items, "items", private=False).collect()}
    assert {i: (r["title"], r["text"], r["attributes"]) for i, r in rows.items()} == {
        "a": ("Red, teapot", "Red, teapot! x, y", {"tags": "x|y", "title": "Red|teapot"}),
        "b": (None, "", {}),
        "c": (None, "", {}),
    }
    users = UserSource(**place, columns={"user_id": "id"}, template="{words}", attributes=["tags"])
    profiles = typed_users(read(spark, users, set()), users, "users", None).where("user_id = 'a'").first()
    assert profiles is not None
    assert (profiles["profile_text"], profiles["attributes"]) == ("Red, teapot", {"tags": "x|y"})
    no_id = ItemSource(**place, columns={"item_id": "tags"}, template="{words}")
    raw = read(spark, no_id, set())
    with pytest.raises(InputError, match=r"column 'tags' is array<string>; expected text, a number or a time"):
        typed_items(raw, no_id, "items", private=False)
    spark.sql("SELECT 'a' AS id, array(1, 2) AS words").write.parquet(str(tmp_path / "numbers"))
    numbers = ItemSource(**place | {"path": str(tmp_path / "numbers")}, columns={"item_id": "id"}, template="{words}")
    raw = read(spark, numbers, set())
    with pytest.raises(InputError, match=r"column 'words' is array<int>; expected text, a list of texts, a number or a time"):
        typed_items(raw, numbers, "items", private=False)


def test_whole_floats_are_the_ids_that_they_were(spark: SparkSession, tmp_path: Path) -> None:
    """As pandas writes a column of whole numbers of which one is missing."""
    made = spark.sql("SELECT * FROM VALUES (12345678D, 7F), (null, 8F), (4711.5D, 20000000F) AS t(u, i)")
    made.write.parquet(str(tmp_path / "log"))
    source = events(tmp_path / "log", format="parquet", columns={"user_id": "u", "item_id": "i", "event_pos": "i"})
    rows = judge(spark, source).collect()
    found = {(r["user_id"], r["item_id"]) for r in rows}
    assert found == {("12345678", "7"), (None, "8"), ("4711.5", "20000000")}


def test_a_quote_that_is_not_closed_is_told_of(spark: SparkSession, tmp_path: Path) -> None:
    """The rows behind it are one value; a text of several lines that was meant is none."""
    path = tmp_path / "log.tsv"
    path.write_text('u\ti\tt\nu1\t"The Best of\t1\nu2\tb\t2\nu3\tc\t3\nu4\td" and\t4\nu5\te\t5\n')
    columns, how = {"user_id": "u", "item_id": "i", "ts": "t"}, {"format": "tsv", "time_format": "epoch_seconds"}
    rows = judge(spark, events(path, columns=columns, **how)).collect()
    (bad,) = [row for row in rows if row[REASONS]]
    assert bad[REASONS][:2] == ["malformed row", OPEN_QUOTE]
    assert "u3\\tc\\t3" in bad[ROW]
    plain = judge(spark, events(path, columns=columns, quote="", **how)).orderBy(ROW_NUMBER).collect()
    assert [row["item_id"] for row in plain] == ['"The Best of', "b", "c", 'd" and', "e"]
    assert not any(row[REASONS] for row in plain)
    wide = tmp_path / "log.csv"
    wide.write_text('u,i,t\nu1,"two lines,\nof a text, and\na third",1\nu2,"x\nu3,c,3\nu4,""d"",4\n')
    rows = judge(spark, events(wide, columns=columns, time_format="epoch_seconds")).orderBy(ROW_NUMBER).collect()
    assert rows[0]["item_id"] == "two lines,\nof a text, and\na third"
    assert not rows[0][REASONS]
    assert OPEN_QUOTE in rows[1][REASONS]


def test_a_file_is_read_by_its_name_and_not_as_a_pattern(spark: SparkSession, tmp_path: Path) -> None:
    for number, name in enumerate(("log1.csv", "log[1].csv", "log{a,b}.csv")):
        log(tmp_path / name, [(f"u{number}", "i", "2024-01-01", 1, "x")])
    rows = judge(spark, events(tmp_path)).collect()
    assert sorted(row["user_id"] for row in rows) == ["u0", "u1", "u2"]
    (tmp_path / "log1.csv").unlink()
    lines = tmp_path / "lines"
    lines.mkdir()
    (lines / "log[1].jsonl").write_text('{"u": "u9", "i": "i", "t": "2024-01-01"}\n')
    source = events(lines, format="jsonl", columns={"user_id": "u", "item_id": "i", "ts": "t"})
    assert [row["user_id"] for row in judge(spark, source).collect()] == ["u9"]


def test_parquet_files_of_later_days_may_have_columns_more_but_no_other_types(spark: SparkSession, tmp_path: Path) -> None:
    place = tmp_path / "log"
    spark.sql("SELECT 'u1' AS u, 'i' AS i, 1L AS t").write.parquet(str(place / "a"))
    spark.sql("SELECT 'u2' AS u, 'i' AS i, 2L AS t, 'phone' AS k").write.parquet(str(place / "b"))
    columns = {"user_id": "u", "item_id": "i", "event_pos": "t", "event_type": "k"}
    rows = judge(spark, events(place, format="parquet", columns=columns)).collect()
    assert {row["user_id"]: row["event_type"] for row in rows} == {"u1": "view", "u2": "phone"}
    spark.sql("SELECT 'u3' AS u, 'i' AS i, 'x' AS t").write.parquet(str(place / "c"))
    with pytest.raises(InputError, match=r"merge incompatible data types .*; expected one type for each column"):
        judge(spark, events(place, format="parquet", columns=columns)).collect()


def test_a_file_in_another_encoding_is_read_as_what_it_is(spark: SparkSession, tmp_path: Path) -> None:
    text = "u,i,t\nmä,€1,2024-01-01\nmö,b,2024-01-02\nplain,b,2024-01-03\n"
    columns = {"user_id": "u", "item_id": "i", "ts": "t"}
    for encoding, quote in (("windows-1252", '"'), ("windows-1252", ""), ("utf-16", '"')):
        path = tmp_path / f"{encoding}.csv"
        path.write_bytes(text.encode(encoding))
        rows = judge(spark, events(path, columns=columns, encoding=encoding, quote=quote)).orderBy(ROW_NUMBER).collect()
        assert [(r["user_id"], r["item_id"], r[REASONS]) for r in rows] == [("mä", "€1", []), ("mö", "b", []), ("plain", "b", [])]
    wrong = judge(spark, events(tmp_path / "windows-1252.csv", columns=columns)).orderBy(ROW_NUMBER).collect()
    one, both = ["user_id is not in the encoding of the file"], ["user_id", "item_id"]
    assert [r[REASONS] for r in wrong] == [[f"{name} is not in the encoding of the file" for name in both], one, []]


def test_json_lines_may_hold_lists(spark: SparkSession, tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text(
        '{"id": "a", "words": ["Red ", "teapot"], "tags": ["x", "y"]}\n{"id": "b", "words": "[draft] pot", "tags": []}\n'
    )
    settings = {"columns": {"item_id": "id", "title": "words"}, "template": "{title}! {tags}", "attributes": ["tags"]}
    items = ItemSource(path=str(path), format="jsonl", **settings)
    rows = {r["item_id"]: r for r in typed_items(read(spark, items, {"tags"}), items, "items", private=False).collect()}
    assert {i: (r["title"], r["text"], r["attributes"]) for i, r in rows.items()} == {
        "a": ("Red, teapot", "Red, teapot! x, y", {"tags": "x|y"}),
        "b": ("[draft] pot", "[draft] pot!", {}),
    }


@pytest.mark.parametrize(
    ("content", "kind"), [(b"u,i,t\na,b,2024-01-01\n", "parquet"), (b"[1, 2]\n", "jsonl"), (b"u,i,t\na,b,c\n", "csv.gz")]
)
def test_a_file_that_is_not_what_the_config_says(spark: SparkSession, tmp_path: Path, content: bytes, kind: str) -> None:
    path = tmp_path / f"log.{kind}"
    path.write_bytes(content)
    source = events(path, format=kind.split(".")[0], columns={"user_id": "u", "item_id": "i", "ts": "t"})
    taken = Intake("events", f"[ingest.events] {path}", source, list_files(spark, source, "x"), "sha", {}, False)
    with pytest.raises(InputError, match=r"log\..* cannot be read: "):
        taken.read(spark, {"u"}, lambda raw: raw)
