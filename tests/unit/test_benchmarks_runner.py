"""The benchmark suite's runner: what is due, what is stored, what "met" means, and unknown names."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from benchmarks import runner
from benchmarks.row import Figures, Row, Scale, setting
from benchmarks.timing import Timed, alternate


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    """The command line sends log lines to the stderr of one test."""
    yield
    structlog.reset_defaults()


def _row(name: str, ratio: float | None = 3.0, equal: bool | None = True, **more: object) -> Row:
    settings: dict[str, object] = {"required": 2.0, "aim": 4.0} | more
    return Row(name, "a", "b", run=lambda _scale: Figures(ratio, {"ours_s": 1.0}, 3, equal), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ratio", "at_most", "equal", "met", "aim_met"),
    [
        (2.0, False, True, True, False),
        (1.99, False, True, False, False),
        (4.0, False, None, True, True),
        (9.0, False, False, False, False),  # fast, but wrong
        (2.0, True, True, True, True),
        (2.01, True, True, False, True),
        (4.01, True, True, False, False),
        (None, True, None, None, None),
    ],
)
def test_met(ratio: float | None, at_most: bool, equal: bool | None, met: bool | None, aim_met: bool | None) -> None:
    row = _row("r", ratio, equal, at_most=at_most)
    document = row.document(row.run(Scale()), Scale())
    assert (document["met"], document["aim_met"]) == (met, aim_met)
    assert (document["ours_s"], document["rounds"], document["scale"]) == (1.0, 3, "full")


def test_a_row_without_bounds_meets_nothing_and_misses_nothing() -> None:
    row = _row("r", 3.0, required=None, aim=None)
    assert row.document(row.run(Scale()), Scale())["met"] is None


def test_goes_on_where_it_stopped(tmp_path: Path) -> None:
    rows, started = [_row("one"), _row("two"), _row("three")], []

    def execute(row: Row) -> bool:
        started.append(row.name)
        if row.name == "two" and started.count("two") == 1:
            return False
        runner.run_row(row, Scale(), tmp_path)
        return True

    assert runner.run_due(rows, tmp_path, execute) == ["two"]
    assert runner.run_due(rows, tmp_path, execute) == []
    assert runner.run_due(rows, tmp_path, execute) == []
    assert started == ["one", "two", "three", "two"]


@pytest.mark.parametrize("changed", ["code_version", "machine"])
def test_other_code_or_another_machine_makes_a_row_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str) -> None:
    row = _row("one")
    assert runner.is_due(row, tmp_path)
    runner.run_row(row, Scale(), tmp_path)
    assert not runner.is_due(row, tmp_path)
    monkeypatch.setattr(runner, changed, lambda: "another")
    assert runner.is_due(row, tmp_path)
    assert "of other code or another machine" in runner.listing([row], tmp_path)


def test_a_named_row_runs_again_and_its_line_is_stored_and_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ratios = iter([3.0, 5.0])
    row = Row("one", "a", "b", 2.0, 4.0, lambda _scale: Figures(next(ratios), {}, 3, True))
    for _ in range(2):
        assert runner.main(["one"], [row], tmp_path) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["ratio"] for line in printed] == [3.0, 5.0]
    stored = json.loads((tmp_path / "one.json").read_text())
    assert stored == printed[-1]
    assert stored["code"] == runner.code_version()
    assert stored["machine"]["cpus"] >= 1
    assert {"python", "pyspark", "torch"} <= set(stored["versions"])


def test_small_runs_store_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.main(["--small"], [_row("one"), _row("two", needs=setting("RECSYS_SPARK_NO_SUCH_VARIABLE"))], tmp_path) == 0
    assert [json.loads(line)["row"] for line in capsys.readouterr().out.splitlines()] == ["one"]
    assert not list(tmp_path.iterdir())


def test_list_shows_what_is_asked_and_what_is_stored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [_row("one"), _row("two", at_most=True, aim=None), _row("three", required=None, aim=None)]
    runner.run_row(rows[0], Scale(), tmp_path)
    capsys.readouterr()
    assert runner.main(["--list"], rows, tmp_path) == 0
    one, two, three = capsys.readouterr().out.splitlines()
    assert ">= 2 (aim 4)" in one
    assert "ratio 3.0" in one
    assert "<= 2" in two
    assert "no result" in two
    assert "reports only" in three


def test_the_module_is_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks", "--list"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("benchmarks", run_name="__main__")
    assert stopped.value.code == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names[:2] == ["cooccurrence-self-join", "cooccurrence-scipy"]


def test_an_unknown_row_names_the_nearest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        runner.main(["topk-als"], [_row("topk-als-128"), _row("encoding")], tmp_path)
    assert stopped.value.code == 2
    assert "unknown row 'topk-als'" in (error := capsys.readouterr().err)
    assert "did you mean 'topk-als-128'?" in error


def test_a_row_that_needs_a_setting_is_left_out_of_the_whole_and_refused_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("BENCH_DATA", raising=False)
    row = _row("night", needs=setting("BENCH_DATA"))
    assert runner.run_due([row], tmp_path, lambda _row: False) == []
    with pytest.raises(SystemExit):
        runner.main(["night"], [row], tmp_path)
    assert "no BENCH_DATA" in capsys.readouterr().err


def test_rounds_alternate_and_start_with_the_other_side_each_time(tmp_path: Path) -> None:
    calls: list[str] = []

    def way(name: str) -> object:
        def run(target: Path) -> None:
            assert not target.exists()
            target.mkdir()
            calls.append(name)

        return run

    timed = alternate({"a": way("a"), "b": way("b")}, 3, tmp_path, {"a": 10, "b": 20}, "rows")  # type: ignore[dict-item]
    assert calls == ["a", "b", "b", "a", "a", "b"]
    assert timed.rounds == 3
    assert not list(tmp_path.iterdir())


def test_medians_and_the_ratio_of_rounds() -> None:
    timed = Timed({"ours": [1.0, 2.0, 4.0], "rival": [8.0, 6.0, 4.0]})
    assert timed.medians() == {"ours_s": 2.0, "rival_s": 6.0}
    assert timed.ratio("rival", "ours") == 3.0
