"""Where a new session gets Delta from, and which logs are small."""

from __future__ import annotations

import os
from pathlib import Path
from zipfile import ZipFile

import pytest

from recsys_spark import session


def _jars(folder: Path) -> list[str]:
    (folder / "jars").mkdir()
    made = [folder / "jars" / name for name in session._DELTA_JARS]
    for jar in made:
        with ZipFile(jar, "w") as out:
            out.writestr("META-INF/MANIFEST.MF", "")
    return [str(jar) for jar in made]


def test_jars_that_an_earlier_session_fetched_are_used_by_a_local_one(tmp_path: Path) -> None:
    jars = _jars(tmp_path)
    asked = {"spark.jars.ivy": str(tmp_path)}
    assert session._delta("local[2]", asked) == {"spark.driver.extraClassPath": os.pathsep.join(jars)}


@pytest.mark.parametrize("master", [None, "spark://host:7077", "local-cluster[2,1,1024]"])
def test_executors_elsewhere_need_the_package(tmp_path: Path, master: str | None) -> None:
    _jars(tmp_path)
    assert session._delta(master, {"spark.jars.ivy": str(tmp_path)}) == {"spark.jars.packages": session.DELTA_PACKAGE}


@pytest.mark.parametrize("option", ["spark.jars.packages", "spark.driver.extraClassPath"])
def test_what_the_user_asks_for_is_left_alone(tmp_path: Path, option: str) -> None:
    _jars(tmp_path)
    found = session._delta("local[*]", {"spark.jars.ivy": str(tmp_path), option: "x"})
    assert "spark.driver.extraClassPath" not in found


def test_a_jar_cut_short_is_fetched_again(tmp_path: Path) -> None:
    jars = _jars(tmp_path)
    Path(jars[0]).write_bytes(Path(jars[0]).read_bytes()[:10])
    assert session._delta("local[2]", {"spark.jars.ivy": str(tmp_path)}) == {"spark.jars.packages": session.DELTA_PACKAGE}


def test_a_log_is_small_by_what_lies_in_all_its_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "SMALL_LOG_BYTES", 10)
    (tmp_path / "old" / "day=1").mkdir(parents=True)
    for name, size in (("a.csv", 4), ("b.csv", 4), ("old/day=1/part", 3)):
        (tmp_path / name).write_bytes(b"x" * size)
    new, old = str(tmp_path / "*.csv"), str(tmp_path / "old")
    assert session.is_small(new)
    assert session.is_small(str(tmp_path / "nowhere"), old)
    assert not session.is_small(new, old)
    assert not session.is_small("s3://bucket/log")


def test_what_java_is_started_with_and_when_sparks_own_file_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session.class_archive, "folder", lambda: tmp_path)
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path))
    key, file = "spark.driver.extraJavaOptions", tmp_path / "spark-defaults.conf"
    assert session._java_options(brief=False, leaves_classes=None) == {key: session.LARGE}
    file.write_text(f"# {key} -Da=b\n{key}Else c\n")
    assert session._java_options(brief=False, leaves_classes=None) == {key: session.LARGE}
    file.write_text(f"spark.x y\n {key}   -Da=b\n")
    assert session._java_options(brief=False, leaves_classes=None) == {}
    assert session._java_options(brief=True, leaves_classes=None) == {key: session.BRIEF}
    (tmp_path / "classes-3.jsa").write_bytes(b"xyz")
    assert "SharedArchiveFile" in session._java_options(brief=False, leaves_classes=None)["spark.driver.extraJavaOptions"]
