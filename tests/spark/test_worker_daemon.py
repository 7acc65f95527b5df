"""Python workers of a local session are forked from a daemon that has loaded their libraries."""

from __future__ import annotations

import gc
import os
import sys
import zipfile
import zipimport
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from recsys_spark.worker_daemon import NEEDED, StandingArchive, keep_archives, load

SCHEMA = "id long, parent long, frozen long, missing string"


def _look(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    missing = [name for name in NEEDED if name not in sys.modules]
    for batch in batches:
        same = [[value] * batch.num_rows for value in (os.getppid(), gc.get_freeze_count(), " ".join(missing))]
        yield pa.RecordBatch.from_arrays([batch.column("id"), *map(pa.array, same)], names=["id", "parent", "frozen", "missing"])


def test_each_worker_finds_the_libraries_in_the_memory_of_the_daemon(spark: SparkSession) -> None:
    rows: list[Any] = spark.range(0, 8, 1, 2).mapInArrow(_look, SCHEMA).collect()
    assert {row["missing"] for row in rows} == {""}
    assert len({row["parent"] for row in rows}) == 1  # one daemon for all
    assert min(row["frozen"] for row in rows) > 10_000  # what torch alone makes is more


def test_a_library_that_is_not_there_is_passed_over() -> None:
    try:
        assert load(("json", "no_such_library.at_all", "numpy")) == ["json", "numpy"]
    finally:
        gc.unfreeze()


def _pack(path: Path, **modules: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, source in modules.items():
            archive.writestr(f"{name}.py", source)


def _listings(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Grows by one whenever an archive is listed anew."""
    seen: list[object] = []
    plain = zipimport.zipimporter.invalidate_caches
    monkeypatch.setattr(zipimport.zipimporter, "invalidate_caches", lambda self: (seen.append(self), plain(self)))
    return seen


def test_an_archive_is_listed_again_only_when_it_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "packed.zip"
    _pack(path, first_packed="value = 1")
    seen = _listings(monkeypatch)
    archive = StandingArchive(str(path))
    archive.invalidate_caches()
    assert seen == []
    assert archive.find_spec("first_packed") is not None
    _pack(path, first_packed="value = 1", second_packed="value = 2")
    archive.invalidate_caches()
    archive.invalidate_caches()
    assert len(seen) == 1
    assert archive.find_spec("second_packed") is not None
    path.unlink()
    archive.invalidate_caches()
    assert archive.find_spec("second_packed") is None


def test_archives_on_the_path_are_imported_from_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    early, late, folder = tmp_path / "early.zip", tmp_path / "late.zip", tmp_path / "folder"
    _pack(early, early_packed="value = 1")
    _pack(late, late_packed="value = 2")
    folder.mkdir()
    monkeypatch.setattr(sys, "path_hooks", list(sys.path_hooks))
    monkeypatch.setattr(sys, "path_importer_cache", {})
    assert PathFinder.find_spec("early_packed", [str(early)]) is not None  # by zipimporter, as before Spark's daemon starts
    keep_archives()
    for name, place in (("early_packed", early), ("late_packed", late)):
        spec = PathFinder.find_spec(name, [str(folder), str(place)])
        assert spec is not None
        assert isinstance(spec.loader, StandingArchive)


def test_a_worker_imports_from_archives_that_stand(spark: SparkSession) -> None:
    finders = spark.range(0, 2, 1, 2).mapInArrow(_finders, "finder string").collect()
    assert {row["finder"] for row in finders} == {"StandingArchive"}  # pyspark.zip is one


def _finders(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for _ in batches:
        found = [type(finder).__name__ for path, finder in sys.path_importer_cache.items() if path.endswith(".zip") and finder]
        yield pa.RecordBatch.from_arrays([pa.array(found, pa.string())], names=["finder"])


def test_frames_are_kept_without_copying_the_session(spark: SparkSession) -> None:
    assert spark.conf.get("spark.sql.sources.bucketing.autoBucketedScan.enabled") == "false"


def test_names_of_the_jvm_that_are_remembered_are_the_ones_it_gives(spark: SparkSession) -> None:
    jvm: Any = spark._jvm
    held = dict(vars(jvm))
    functions = held["org.apache.spark.sql.functions"]
    assert held["functions"]._fqn == functions._fqn == "org.apache.spark.sql.functions"
    assert functions.col("a").toString() == "a"
    assert vars(functions)["lit"](3).toString() == "3"
    assert held["PythonUtils"]._fqn == "org.apache.spark.api.python.PythonUtils"
