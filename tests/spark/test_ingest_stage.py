"""The ingest stage end to end: sums, reruns, later files, dictionaries, sessions, graphs and errors."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, Row, SparkSession

from recsys_spark.config import parse_config
from recsys_spark.context import Context
from recsys_spark.errors import ConfigError, InputError
from recsys_spark.ingest import gather
from recsys_spark.ingest.stage import run
from recsys_spark.tables.content import content_hash
from recsys_spark.tables.runs import StageReport
from recsys_spark.tables.store import Commit, Store, Written
from recsys_spark.tables.visible import InstantCutoff

TABLES = ("events", "items", "users", "knowledge_graph", "quarantine", "ledger")
DAY_1 = """user:token\titem:token\trating:float\ttime
u1\ti1\t5\t2024-01-01 10:00:00
u1\ti2\t1\t2024-01-01 10:20:00
u1\ti2\t1\t2024-01-01 10:20:00
u2\ti1\t3\t2024-01-01 11:00:00
\ti1\tx\t2024-01-01 11:00:00
u2\ti9\t4\t1970-01-01
"""
DAY_2 = """user:token\titem:token\trating:float\ttime
u1\ti1\t5\t2024-01-01 10:00:00
u1\ti3\t4\t2024-01-01 10:40:00
u3\ti4\t4\t2023-12-31 10:00:00
"""
ITEMS = """id,name,year,genres,ok
i1,"Say ""hi""\nnow",1999,Comedy | Drama,yes
i2,  ,,,no
i2,Two,,Drama,1
i5,Five,2001,,
i6,Six,,,maybe
,None,,,
"""


class Night:
    """A folder of sources and a store, ingested run by run."""

    def __init__(self, spark: SparkSession, folder: Path) -> None:
        self.spark, self.folder, self.store = spark, folder, Store(spark, str(folder / "warehouse"))
        self.events: dict[str, Any] = {
            "path": [str(folder / "day1.tsv")],
            "format": "tsv",
            "columns": {"user_id": "user:token", "item_id": "item:token", "value": "rating:float", "ts": "time"},
            "dislike_at_most": 2.0,
        }
        self.others: dict[str, Any] = {}
        (folder / "day1.tsv").write_text(DAY_1)

    def ingest(self, run_id: str, store: Store | None = None) -> StageReport:
        settings = {"events": self.events, **self.others}
        data = {"as_of": "2024-02-01T00:00:00Z", "warehouse": self.store.root, "ingest": settings}
        config = parse_config(data)
        cutoff = InstantCutoff(config.as_of, config.as_of, config.as_of)
        return run(config, Context(self.spark, store or self.store, config, "live", cutoff, run_id))

    def read(self, table: str) -> DataFrame:
        return self.store.read(table, "live")

    def versions(self) -> dict[str, int]:
        return {table: self.store.version(table, "live") for table in TABLES}

    def contents(self) -> dict[str, str]:
        return {t: content_hash(self.read(t).drop("run_id")) for t in ("events", "items", "users", "quarantine")}


def sums_hold(report: StageReport) -> bool:
    return all(t["read"] == t["kept"] + t["merged"] + t["known"] + t["quarantined"] for t in report.facts["tables"].values())


@pytest.fixture
def night(spark: SparkSession, tmp_path: Path) -> Night:
    return Night(spark, tmp_path)


def test_a_first_file_the_same_again_and_a_later_one(night: Night) -> None:
    (night.folder / "items.csv").write_text(ITEMS)
    (night.folder / "graph.csv").write_text("h,r,t\ne1,by,p1\np2,made,e1\ne1,by,p1\np8,by,p9\n")
    (night.folder / "links.csv").write_text("id,entity\ni1,e1\ni77,e2\n")
    night.others = {
        "items": {
            "path": str(night.folder / "items.csv"),
            "columns": {"item_id": "id", "title": "name", "available": "ok"},
            "template": "{title} ({year}). {genres}",
            "attributes": ["genres"],
            "split_attributes": "|",
        },
        "knowledge_graph": {
            "path": str(night.folder / "graph.csv"),
            "columns": {"head": "h", "relation": "r", "tail": "t"},
            "links": {"path": str(night.folder / "links.csv"), "columns": {"item_id": "id", "entity_id": "entity"}},
        },
    }
    first = night.ingest("r1")
    assert sums_hold(first)
    assert first.facts["tables"]["events"] == {"files": 1, "read": 6, "kept": 4, "merged": 0, "known": 0, "quarantined": 2}
    assert first.facts["tables"]["items"] == {"files": 1, "read": 6, "kept": 3, "merged": 1, "known": 0, "quarantined": 2}
    assert first.facts["tables"]["links"]["quarantined"] == 1
    assert first.facts["tables"]["knowledge_graph"] == {
        "files": 1,
        "read": 4,
        "kept": 2,
        "merged": 1,
        "known": 0,
        "quarantined": 1,
    }
    assert first.facts["reasons"]["events"] == {"missing user_id": 1, "ts is 0": 1, "value is not a number": 1}
    graph = {tuple(r) for r in night.read("knowledge_graph").collect()}
    assert graph == {("i1", "by", "p1"), ("i1", "made (inverse)", "p2")}
    items = {r["item_id"]: r for r in night.read("items").collect()}
    texts = {i: r["text"] for i, r in items.items()}
    assert texts == {"i1": 'Say "hi" now (1999). Comedy | Drama', "i2": "Two. Drama", "i5": "Five (2001)"}
    assert items["i2"]["available"]
    assert items["i1"]["attributes"] == {"genres": "Comedy|Drama"}
    assert str(items["i1"]["first_seen"]) == "2024-01-01"
    assert str(items["i5"]["first_seen"]) == "2024-02-01"
    assert sorted(r["item_idx"] for r in items.values()) == [0, 1, 2]
    events = {(r["user_id"], r["event_pos"]): r for r in night.read("events").collect()}
    assert events["u1", 1]["label"] == -1
    assert events["u2", 3]["label"] == 0
    assert events["u1", 0]["session_id"] == events["u1", 2]["session_id"]

    before = night.versions()
    check_again(night)
    assert night.versions() == before
    check_later(night, items)
    check_changed_settings(night)


def check_again(night: Night) -> None:
    assert night.ingest("r2").status == "skipped"
    (night.folder / "copy.tsv").write_text(DAY_1)
    night.events["path"] = [str(night.folder / "copy.tsv")]
    again = night.ingest("r3")
    assert again.status == "done"
    assert again.facts["tables"]["events"] == {"files": 1, "read": 6, "kept": 0, "merged": 0, "known": 6, "quarantined": 0}


def check_later(night: Night, items: dict[str, Row]) -> None:
    (night.folder / "day2.tsv").write_text(DAY_2)
    night.events["path"] = [str(night.folder / "day1.tsv"), str(night.folder / "day2.tsv")]
    later = night.ingest("r4")
    assert sums_hold(later)
    assert later.facts["tables"]["events"] == {"files": 2, "read": 9, "kept": 2, "merged": 0, "known": 7, "quarantined": 0}
    after = {r["item_id"]: r for r in night.read("items").collect()}
    assert {i: after[i]["item_idx"] for i in items} == {i: r["item_idx"] for i, r in items.items()}
    assert {after["i3"]["item_idx"], after["i4"]["item_idx"]} == {3, 4}
    assert (after["i4"]["text"], after["i4"]["title"], after["i4"]["has_text"]) == ("", None, False)
    assert after["i1"] == items["i1"]
    sessions = {r["session_id"] for r in night.read("events").where("user_id = 'u1'").collect()}
    assert len(sessions) == 1
    assert {r["event_pos"] for r in night.read("events").where("item_id in ('i3', 'i4')").collect()} == {7, 8}


def check_changed_settings(night: Night) -> None:
    night.events["path"] = [str(night.folder / "day1.tsv")]
    night.events["dislike_at_most"] = 0.5
    with pytest.raises(ConfigError, match="1 of its 2 files are not in 'path' now"):
        night.ingest("r5")
    night.events["path"].append(str(night.folder / "day2.tsv"))
    assert night.ingest("r6").facts["tables"]["events"]["kept"] == 6
    rows = night.read("events")
    assert rows.where("label = -1").count() == 0
    assert rows.count() == rows.select("event_id").distinct().count() == 6
    assert {r["user_id"]: r["user_idx"] for r in night.read("users").collect()}.keys() == {"u1", "u2", "u3"}


class DyingStore(Store):
    """A store whose process dies before the ledger is written."""

    def merge(self, table: str, namespace: str, frame: DataFrame, commit: Commit) -> Written:
        if table == "ledger":
            raise KeyboardInterrupt
        return super().merge(table, namespace, frame, commit)


def test_a_run_killed_before_the_ledger_is_done_again_to_the_same_tables(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    killed, calm = Night(spark, tmp_path / "a"), Night(spark, tmp_path / "b")
    with pytest.raises(KeyboardInterrupt):
        killed.ingest("r1", DyingStore(spark, killed.store.root))
    report = killed.ingest("r2")
    calm.ingest("r1")
    assert killed.contents() == calm.contents()
    assert killed.store.version("events", "live") == 0
    assert report.facts["tables"]["events"]["known"] == 4
    assert sums_hold(report)


def test_an_id_key_hides_users_everywhere(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_TEST_KEY", "key")
    (night.folder / "users.csv").write_text("id,job\nu1,cook\nu7,poet\n,none\n")
    night.others = {
        "id_key_env": "RECSYS_TEST_KEY",
        "users": {
            "path": str(night.folder / "users.csv"),
            "columns": {"user_id": "id", "job": "job"},
            "template": "{job}",
            "attributes": ["job"],
        },
    }
    night.ingest("r1")
    hidden = {name: hmac.new(b"key", name.encode(), hashlib.sha256).hexdigest() for name in ("u1", "u2", "u7")}
    users = {r["user_id"]: r for r in night.read("users").collect()}
    assert users.keys() == set(hidden.values())
    assert users[hidden["u1"]]["profile_text"] == "cook"
    assert users[hidden["u2"]]["profile_text"] is None
    assert users[hidden["u7"]]["attributes"] == {"job": "poet"}
    rows = {(r["table"], r["row_number"]): r["row"] for r in night.read("quarantine").collect()}
    assert rows["users", 2] == '{"id":0,"job":4}'
    assert rows["events", 5] == '{"user:token":2,"item:token":2,"rating:float":1,"time":10}'


def test_given_ids_merge_and_a_log_with_only_an_order_gets_synthetic_times(night: Night) -> None:
    (night.folder / "log.csv").write_text("e,u,i,n\na,u,x,0\nb,u,y,61\na,u,x,2\nc,u,z,-1\n")
    night.events = {
        "path": str(night.folder / "log.csv"),
        "columns": {"event_id": "e", "user_id": "u", "item_id": "i", "event_pos": "n"},
    }
    report = night.ingest("r1")
    assert report.facts["tables"]["events"] == {"files": 1, "read": 4, "kept": 2, "merged": 1, "known": 0, "quarantined": 1}
    assert report.facts["reasons"]["events"] == {"event_pos is out of range": 1}
    rows = [(r["event_id"], r["event_pos"], str(r["ts"])) for r in night.read("events").orderBy("event_pos").collect()]
    assert rows == [("a", 0, "2000-01-01 00:00:00"), ("b", 61, "2000-01-01 00:01:01")]


@pytest.mark.parametrize("most_sent", [1_000_000, 0])
def test_late_events_move_sessions_and_no_other_row(night: Night, monkeypatch: pytest.MonkeyPatch, most_sent: int) -> None:
    monkeypatch.setattr(gather, "MAX_SENT_EVENTS", most_sent)
    first = [("u1", f"2024-01-0{day} {hour}:00:00") for day in (1, 2, 3) for hour in (10, 11)] + [("u2", "2024-01-01 10:00:00")]
    late = [first[2], ("u1", "2024-01-02 09:45:00"), ("u1", "2024-01-02 10:30:00"), ("u3", "2024-01-05 10:00:00")]
    for name, rows in (("a.csv", first), ("b.csv", late)):
        (night.folder / name).write_text("u,i,t\n" + "".join(f"{user},x,{ts}\n" for user, ts in rows))
    night.events = {"path": str(night.folder / "a.csv"), "columns": {"user_id": "u", "item_id": "i", "ts": "t"}}
    night.ingest("r1")
    before = {row["event_id"]: row for row in night.read("events").collect()}
    night.events["path"] = [str(night.folder / "a.csv"), str(night.folder / "b.csv")]
    report = night.ingest("r2")
    assert report.facts["tables"]["events"] == {"files": 2, "read": 11, "kept": 3, "merged": 0, "known": 8, "quarantined": 0}
    after = {row["event_id"]: row for row in night.read("events").collect()}
    changed = sorted(str(row["ts"]) for name, row in after.items() if name in before and row != before[name])
    assert changed == ["2024-01-02 10:00:00", "2024-01-02 11:00:00"]
    assert report.written["events"].rows == 5  # these and three new ones: what stays is not written
    second = {row["session_id"] for row in after.values() if row["user_id"] == "u1" and row["ts"].day == 2}
    assert second == {hashlib.sha256(b"2:u116:1704188700000000").hexdigest()[:32]}  # of 09:45, with lengths in front
    assert len({row["session_id"] for row in after.values()}) == 7


def test_a_delta_table_is_known_by_its_version(night: Night) -> None:
    path = str(night.folder / "raw")
    query = "SELECT 'u' AS u, 7L AS i, TIMESTAMP'2024-01-01 10:00:00' AS t, 2.5D AS v"
    night.spark.sql(query).write.format("delta").save(path)
    columns = {"user_id": "u", "item_id": "i", "ts": "t", "value": "v"}
    night.events = {"path": path, "format": "delta", "columns": columns}
    night.ingest("r1")
    row = night.read("events").collect()[0]
    assert (row["item_id"], row["value"], str(row["ts"])) == ("7", 2.5, "2024-01-01 10:00:00")
    night.spark.sql(query.replace("7L", "8L")).write.format("delta").mode("append").save(path)
    report = night.ingest("r2")
    assert report.facts["tables"]["events"] == {"files": 1, "read": 2, "kept": 1, "merged": 0, "known": 1, "quarantined": 0}


def test_nothing_good_is_an_error_and_nothing_is_lost(night: Night) -> None:
    (night.folder / "day1.tsv").write_text("user:token\titem:token\trating:float\ttime\n")
    with pytest.raises(InputError, match=r"\[ingest.events\] .*day1.tsv: the source has no rows; expected at least one row"):
        night.ingest("r0")
    (night.folder / "day1.tsv").write_text("")
    with pytest.raises(InputError, match="the source has no rows"):
        night.ingest("r0")
    (night.folder / "day1.tsv").write_text("user:token\titem:token\trating:float\ttime\nu\ti\tx\t0\n\ti\t1\tnever\n")
    with pytest.raises(
        InputError, match=r"all 2 rows are bad: ts is not a time \(2\), missing user_id \(1\), value is not a number \(1\)"
    ):
        night.ingest("r1")
    assert night.read("quarantine").count() == 2
    assert not night.store.exists("events", "live")
    assert not night.store.exists("ledger", "live")
