"""Which rows are due, running them, and keeping each finished row's line at once, so that a stopped run goes on."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.machine import library_versions, machine
from benchmarks.row import Row, Scale
from recsys_spark import process
from recsys_spark.code_version import code_version
from recsys_spark.config.base import nearest
from recsys_spark.errors import ConfigError
from recsys_spark.files import write_text
from recsys_spark.log import get_logger

RESULTS = Path(__file__).resolve().parent / "results"
log = get_logger("benchmarks")
Execute = Callable[[Row], bool]  # runs and stores one row; False where it failed


def find(rows: Sequence[Row], name: str) -> Row:
    """The row of that name.

    Raises:
        ConfigError: there is none; names the nearest.
    """
    known = {row.name: row for row in rows}
    if name not in known:
        raise ConfigError(
            "benchmarks", f"unknown row '{name}'", "a row of 'python -m benchmarks --list'", nearest(name, [*known])
        )
    return known[name]


def stored(row: Row, results: Path) -> dict[str, Any] | None:
    """The row's last line, whatever code and machine it is of; None without one."""
    path = results / f"{row.name}.json"
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def is_due(row: Row, results: Path) -> bool:
    """Whether the row has no result for the present code and machine."""
    last = stored(row, results)
    return last is None or (last.get("code"), last.get("machine")) != (code_version(), machine())


def run_row(row: Row, scale: Scale, results: Path | None) -> dict[str, Any]:
    """Run one row, print its line and store it, where ``results`` is given.

    Raises:
        ConfigError: what the row needs is not there.
    """
    if (lacking := row.lacks) is not None:
        raise ConfigError(f"row '{row.name}'", f"no {lacking.name}", "what the row needs", lacking.do)
    log.info("row starts", row=row.name, what=row.what, against=row.against, scale=scale.name)
    document = row.document(row.run(scale), scale)
    document |= {"code": code_version(), "machine": machine(), "versions": library_versions()}
    document["measured_at"] = datetime.now(UTC).isoformat(timespec="seconds")
    line = json.dumps(document)
    if results is not None:
        write_text(results / f"{row.name}.json", line + "\n")
    print(line, flush=True)
    return document


def run_due(rows: Sequence[Row], results: Path, execute: Execute) -> list[str]:
    """Run every row that is due, one after the other; a row that fails does not keep the others from running.

    Returns:
        The names of the rows that failed.
    """
    failed = []
    for row in rows:
        if not is_due(row, results):
            log.info("stands", row=row.name)
        elif (lacking := row.lacks) is not None:
            log.info("left out", row=row.name, needs=lacking.name)
        elif not execute(row):
            log.error("failed", row=row.name)
            failed.append(row.name)
    return failed


def in_process_of_its_own(row: Row) -> bool:
    """Run a row by its name in a fresh process: no other row's heap, threads or compiled code."""
    return subprocess.run([sys.executable, "-m", "benchmarks", row.name], check=False).returncode == 0


def listing(rows: Sequence[Row], results: Path) -> str:
    """One line per row: what is asked for and what is stored."""
    lines = []
    for row in rows:
        last, sign = stored(row, results), "<=" if row.at_most else ">="
        asked = "reports only" if row.required is None else f"{sign} {row.required:g}"
        aim = "" if row.aim is None else f" (aim {row.aim:g})"
        state = "no result" if last is None else f"ratio {last['ratio']}, {last['measured_at']}"
        if last is not None and is_due(row, results):
            state += ", of other code or another machine"
        lines.append(f"{row.name:<24}{asked + aim:<20}{state:<60}{row.what}; against {row.against}")
    return "\n".join(line.rstrip() for line in lines)


def _rows() -> Sequence[Row]:
    """Read late: their modules load torch and Spark."""
    from benchmarks.rows import ROWS

    return ROWS


def main(arguments: Sequence[str] | None = None, rows: Sequence[Row] | None = None, results: Path = RESULTS) -> int:
    """The command line; returns the exit code: 1 where a row failed, 2 for a row that does not exist."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="rows to run, again where they have a result; default: all due")
    parser.add_argument("--list", action="store_true", help="show the rows, what is asked of them and what is stored")
    parser.add_argument("--small", action="store_true", help="a tiny scale, for tests; nothing is stored")
    options = parser.parse_args(arguments)
    process.start()
    with process.errors_as_lines():
        known = _rows() if rows is None else rows
        if options.list:
            print(listing(known, results))
            return 0
        if not options.names and not options.small:
            return 1 if run_due(known, results, in_process_of_its_own) else 0
        chosen = [find(known, name) for name in options.names] or [row for row in known if row.needs is None]
        for row in chosen:
            run_row(row, Scale(small=options.small), None if options.small else results)
    return 0
