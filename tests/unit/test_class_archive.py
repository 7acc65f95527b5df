"""The archive of classes: what a JVM is told of it, and that a real one takes its classes from it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pyspark
import pytest

from recsys_spark.class_archive import dump_options, java_options, put
from recsys_spark.errors import MachineError


def _new(home: Path, size: int) -> Path:
    path = home / "new.jsa"
    path.write_bytes(b"x" * size)
    return path


def test_only_a_whole_archive_is_used(tmp_path: Path) -> None:
    assert java_options(tmp_path / "nowhere") == java_options(tmp_path) == []
    kept = put(_new(tmp_path, 10), tmp_path)
    assert java_options(tmp_path)[0] == f"-XX:SharedArchiveFile={kept}"
    kept.write_bytes(b"x" * 9)  # cut short: a JVM would crash of it
    assert java_options(tmp_path) == []


def test_a_newer_archive_takes_the_place_of_the_older(tmp_path: Path) -> None:
    put(_new(tmp_path, 10), tmp_path)
    kept = put(_new(tmp_path, 20), tmp_path)
    assert list(tmp_path.iterdir()) == [kept]
    assert put(_new(tmp_path, 20), tmp_path) == kept
    assert kept.stat().st_size == 20


def test_a_place_that_would_be_taken_apart_is_not_named(tmp_path: Path) -> None:
    odd = tmp_path / "with space"
    odd.mkdir()
    put(_new(odd, 10), odd)
    assert java_options(odd) == []


def test_java_that_leaves_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="left no file"):
        put(tmp_path / "new.jsa", tmp_path)
    with pytest.raises(MachineError, match="left no file"):
        put(_new(tmp_path, 0), tmp_path)


def test_a_jvm_loads_spark_from_it_and_one_that_it_does_not_fit_says_nothing(tmp_path: Path) -> None:
    jars = Path(pyspark.__file__).parent / "jars"

    def version(*options: str, first: str = "") -> str:
        path = f"{first}{jars}/*"
        command = ["java", *options, "-cp", path, "org.apache.spark.deploy.SparkSubmit", "--version"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        return re.sub(r"\d\d:\d\d:\d\d", "", done.stdout + done.stderr)

    plain = version(*dump_options(tmp_path / "new.jsa"))
    put(tmp_path / "new.jsa", tmp_path)
    assert version(*java_options(tmp_path)) == plain
    source = "source: shared objects file (top)"
    loads = version(*java_options(tmp_path), "-Xlog:class+load").splitlines()
    assert any("org.apache.spark.deploy.SparkSubmit " in line and source in line for line in loads)
    assert version(*java_options(tmp_path), first=f"{tmp_path}:") == plain  # other jars: not taken, not complained of
