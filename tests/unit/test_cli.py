"""The command line: every command answers --help with an example; mistakes end as one line and an exit code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from recsys_spark.cli import app, screen
from recsys_spark.cli import doctor as doctor_module
from recsys_spark.errors import MachineError

ROOT = Path(__file__).resolve().parents[2]


def _commands(command: object = None, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    group = get_command(app) if command is None else command
    children = getattr(group, "commands", None)
    if children is None:
        return [path]
    return [found for name, child in children.items() for found in _commands(child, (*path, name))]


@pytest.mark.parametrize("path", _commands(), ids=" ".join)
def test_help_shows_an_example(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*path, "--help"])
    assert result.exit_code == 0
    assert f"Example: recsys-spark {' '.join(path)}" in " ".join(result.output.split())


@pytest.mark.parametrize("job", sorted((ROOT / "jobs").glob("*.py")), ids=lambda p: p.stem)
def test_jobs_are_doorways(job: Path) -> None:
    lines = job.read_text().splitlines()
    assert len(lines) <= 12
    done = subprocess.run([sys.executable, str(job), "--help"], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0
    assert f"jobs/{job.stem}.py --config" in " ".join(done.stdout.split())


def test_a_mistake_is_one_line_and_an_exit_code(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "recsys_spark.cli", "run", "--config", str(tmp_path / "none.toml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "no such file" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("text", "found"), [('openjdk version "17.0.15" 2025', 17), ('java version "1.8.0_402"', 1), ("", None)])
def test_java_is_read_from_its_own_words(monkeypatch: pytest.MonkeyPatch, text: str, found: int | None) -> None:
    answer = subprocess.CompletedProcess([], 0, stdout="", stderr=text)
    monkeypatch.setattr(doctor_module.subprocess, "run", lambda *a, **k: answer)
    assert doctor_module.java_version() == found


def test_no_java_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(MachineError, match="none found; expected Java 17 or 21; install Java 17"):
        doctor_module.require_java()


def test_make_without_java_says_so_before_doing_anything(tmp_path: Path) -> None:
    fake = tmp_path / "java"
    fake.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    fake.chmod(0o755)
    done = subprocess.run(
        ["make", "java"], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "needs Java 17; found: 11. Install it:" in done.stderr


def test_titles_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    with screen.recorded() as shown:
        screen.console.print("Heat [dvd], a [b]c and [/i]")
    assert shown.text.strip() == capsys.readouterr().out.strip() == "Heat [dvd], a [b]c and [/i]"
