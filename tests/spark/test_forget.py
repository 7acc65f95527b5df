"""Users who are forgotten: nothing of theirs is kept, nothing of others is touched, and what they did stays out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import Row, SparkSession

from recsys_spark.config import Config, parse_config
from recsys_spark.context import Context
from recsys_spark.errors import ConfigError, InputError
from recsys_spark.ingest.pseudonyms import pseudonym_of
from recsys_spark.ingest.stage import run
from recsys_spark.publish.forget import forget, welcome
from recsys_spark.publish.named_users import named_users
from recsys_spark.tables.content import content_hash
from recsys_spark.tables.contracts import contract
from recsys_spark.tables.local import local_frame
from recsys_spark.tables.store import Commit, Store
from recsys_spark.tables.visible import InstantCutoff

KEY_VARIABLE = "RECSYS_TEST_KEY"
COMMIT = Commit("r1", "test", "f")
DAY = datetime(2024, 1, 1, tzinfo=UTC)
ANN, BEE, CID = "ann o'hara", "bee/1", "cid"
LOG = [(ANN, "i1", DAY), (BEE, "i1", DAY), (BEE, "i2", DAY), (CID, "i2", DAY), (BEE, "i3", "never"), (CID, "i3", "never")]
PROFILES = [(ANN, "gardens"), (BEE, "bees")]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "secret")


def _write(path: Path, header: str, rows: list[tuple[Any, ...]]) -> None:
    lines = [header, *("\t".join(v.isoformat() if isinstance(v, datetime) else str(v) for v in row) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _config(folder: Path, keyed: bool) -> Config:
    _write(folder / "users.tsv", "user\tlikes", PROFILES)
    ingest: dict[str, Any] = {
        "events": {
            "path": str(folder / "log-*.tsv"),
            "format": "tsv",
            "columns": {"user_id": "user", "item_id": "item", "ts": "time"},
        },
        "users": {"path": str(folder / "users.tsv"), "format": "tsv", "columns": {"user_id": "user"}, "template": "{likes}"},
    }
    ingest |= {"id_key_env": KEY_VARIABLE} if keyed else {}
    return parse_config({"as_of": "2024-02-01T00:00:00Z", "warehouse": str(folder / "warehouse"), "ingest": ingest})


def _ingest(spark: SparkSession, config: Config, run_id: str) -> Store:
    store = Store(spark, config.warehouse)
    run(config, Context(spark, store, config, "live", InstantCutoff(config.as_of, config.as_of, config.as_of), run_id))
    return store


def _rows(store: Store, table: str, *without: str) -> list[Row]:
    frame = store.read(table, "live")
    key = contract(table).key
    return [row for row in frame.orderBy(*key).collect() if not any(value in without for value in row.asDict().values())]


def _named(user: str, keyed: bool) -> str:
    return pseudonym_of(user, b"secret" if keyed else None)


@pytest.mark.parametrize("keyed", [False, True], ids=["ids", "pseudonyms"])
def test_all_of_a_user_goes_and_nothing_else(spark: SparkSession, tmp_path: Path, keyed: bool) -> None:
    config = _config(tmp_path, keyed)
    _write(tmp_path / "log-1.tsv", "user\titem\ttime", LOG)
    store = _ingest(spark, config, "n1")
    ann, bee, cid = (_named(user, keyed) for user in (ANN, BEE, CID))
    lists = [(user, 1, "i9", 0.5, "popular", [], None, "n1", DAY) for user in (ann, bee, cid)]
    store.replace("recommendations", "live", local_frame(spark, lists, contract("recommendations").schema), COMMIT)
    near = [(ann, 1, bee, 0.5, "n1", DAY), (bee, 1, cid, 0.4, "n1", DAY), (cid, 1, ann, 0.3, "n1", DAY)]
    store.replace("user_neighbours", "live", local_frame(spark, near, contract("user_neighbours").schema), COMMIT)
    numbers = {row["user_id"]: row["user_idx"] for row in _rows(store, "users")}
    robots = [(numbers[user], ["too fast"]) for user in (ann, bee)]
    store.replace("robots", "live", local_frame(spark, robots, contract("robots").schema), COMMIT)
    store.replace("target_ranks", "eval/n1", local_frame(spark, [(bee, "i1", 1, 9)], contract("target_ranks").schema), COMMIT)
    versions = {"recommendations": store.version("recommendations", "live")}
    published = [(0, DAY, "n1", None, versions, "publish", "test", DAY)]
    store.append("published", "live", local_frame(spark, published, contract("published").schema), COMMIT)
    (tmp_path / "reports").mkdir()
    for name, user in (("n1", bee), ("n0", ann)):
        shown = user.replace("'", "&#39;")
        (tmp_path / "reports" / f"{name}.html").write_text(f"<h3>User <bdi>{shown}</bdi></h3>")
    tables = ("events", "users", "quarantine", "recommendations", "user_neighbours", "robots")
    before = {table: _rows(store, table, bee, numbers[bee] if table == "robots" else bee) for table in tables}

    planned = forget(config, spark, [BEE, "nobody"], dry_run=True)
    assert (planned.asked, planned.known) == (2, 1)
    assert store.rows("events", "live") == 4
    done = forget(config, spark, [BEE, "nobody"])
    assert done == planned
    gone = {"events": 2, "users": 1, "recommendations": 1, "user_neighbours": 2, "robots": 1}
    gone |= {} if keyed else {"quarantine": 1}
    assert (done.rows, done.namespaces, [page.name for page in done.reports]) == (gone, ("eval/n1",), ["n1.html"])
    for table in tables:
        expected = [row for row in before[table] if table != "quarantine" or keyed or BEE not in row["row"]]
        assert _rows(store, table) == expected, table
        assert store.content(table, "live") == content_hash(store.read(table, "live"))  # as the commit says
    assert not store.exists("target_ranks", "eval/n1")
    assert (tmp_path / "reports" / "n0.html").exists()
    newest = _rows(store, "published")[-1]
    assert (newest["action"], newest["run_id"], newest["versions"]) == ("forget", "n1", {"recommendations": 1})
    logs = "".join(path.read_text() for path in Path(store.root).rglob("_delta_log/*.json"))
    assert bee not in logs
    again = forget(config, spark, [BEE])
    assert (again.known, again.rows, again.reports) == (0, {}, ())


def test_what_a_forgotten_user_did_stays_out_until_welcome(spark: SparkSession, tmp_path: Path) -> None:
    config = _config(tmp_path, keyed=True)
    _write(tmp_path / "log-1.tsv", "user\titem\ttime", LOG)
    _ingest(spark, config, "n1")
    forget(config, spark, [BEE])
    bee = _named(BEE, keyed=True)
    later = datetime.now(UTC) + timedelta(hours=1)
    _write(tmp_path / "log-2.tsv", "user\titem\ttime", [*LOG[:4], (BEE, "i4", later), (CID, "i4", later)])
    store = _ingest(spark, config, "n2")
    assert [row["item_id"] for row in _rows(store, "events") if row["user_id"] == bee] == ["i4"]  # comes back by itself
    assert store.rows("events", "live") == 4
    kept_out = [row for row in _rows(store, "quarantine") if row["reasons"] == ["user was forgotten"]]
    assert sorted((row["table"], row["row"]) for row in kept_out) == [("events", "{}")] * 2 + [("users", "{}")]
    assert {row["user_id"]: row["profile_text"] for row in _rows(store, "users")}[bee] is None
    assert welcome(config, spark, [BEE, CID]) == 1
    _write(tmp_path / "log-3.tsv", "user\titem\ttime", [*LOG[:3]])
    store = _ingest(spark, config, "n3")
    assert [row["item_id"] for row in _rows(store, "events") if row["user_id"] == bee] == ["i1", "i2", "i4"]
    assert {row["user_id"]: row["profile_text"] for row in _rows(store, "users")}[bee] == "bees"


def test_users_are_named_by_arguments_or_by_a_file(tmp_path: Path) -> None:
    listed = tmp_path / "users.txt"
    listed.write_text("u1\n\nu 2\nu1\n", encoding="utf-8")
    assert named_users(["u0"], listed) == ["u0", "u1", "u 2"]
    with pytest.raises(InputError, match="nobody is named"):
        named_users([], None)
    with pytest.raises(InputError, match="no such file"):
        named_users(["u0"], tmp_path / "none.txt")


def test_rows_that_do_not_parse_keep_no_id_either(spark: SparkSession, tmp_path: Path) -> None:
    config = _config(tmp_path, keyed=False)
    rows = [(ANN, "i1", DAY), (BEE, "i1", DAY), (BEE, "i2", DAY, "too", "many"), (BEE + "x", "i2", DAY, "too", "many")]
    _write(tmp_path / "log-1.tsv", "user\titem\ttime", rows)
    store = _ingest(spark, config, "n1")
    assert store.rows("quarantine", "live") == 2
    assert forget(config, spark, [BEE]).rows["quarantine"] == 1
    (left,) = _rows(store, "quarantine")
    assert BEE + "x" in left["row"]
    _write(tmp_path / "log-2.tsv", "user\titem\ttime", [(CID, "i1", DAY), (BEE, "i7", "never"), (BEE, "i8", DAY, "too", "many")])
    store = _ingest(spark, config, "n2")
    assert [row["row"] for row in _rows(store, "quarantine") if row["run_id"] == "n2"] == ["{}", "{}", "{}"]  # with the profile
    assert BEE not in {row["user_id"] for row in _rows(store, "users")}


def test_a_warehouse_has_one_key(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path / "log-1.tsv", "user\titem\ttime", LOG)
    store = _ingest(spark, _config(tmp_path, keyed=True), "n1")
    before = store.content("users", "live")
    monkeypatch.setenv(KEY_VARIABLE, "another")
    with pytest.raises(ConfigError, match="id_key_env: another key; expected what this warehouse was made with"):
        _ingest(spark, _config(tmp_path, keyed=True), "n2")
    with pytest.raises(ConfigError, match="id_key_env: no key; expected"):
        _ingest(spark, _config(tmp_path, keyed=False), "n2")
    assert store.content("users", "live") == before
