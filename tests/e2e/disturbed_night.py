"""A night that is killed on request: ``python -m tests.e2e.disturbed_night SETTINGS.json KILL...`` (a helper of the kill tests).

KILL is ``after:STAGE:NAMESPACE`` (the driver dies between two stages), ``write:TABLE`` (the driver dies in a Delta write: data
files exist, the commit does not) or ``worker:STAGE`` (a Python worker dies while the stage runs, and the night goes on).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from recsys_spark import process
from recsys_spark.config import parse_config
from recsys_spark.order import run_night
from recsys_spark.session import build_session
from recsys_spark.tables.store import Store
from recsys_spark.tables.task_files import Staged


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _after(stage: str, namespace: str) -> Any:
    def told(done_stage: str, done_namespace: str) -> None:
        if (done_stage, done_namespace) == (stage, namespace):
            _die()

    return told


def _during_write(table: str) -> None:
    """Die as soon as the table's write has left a data file, before its commit."""
    replace = Store.replace

    def watched(self: Store, name: str, namespace: str, *args: Any, **kwargs: Any) -> Any:
        if name == table and "/systems/" not in namespace:  # the night's own lists, not those of a baseline
            if isinstance(args[0], Staged):  # its files are there
                _die()
            folder = Path(self.path(name, namespace))
            before = set(folder.rglob("*.parquet"))
            threading.Thread(target=_die_at_new_file, args=(folder, before), daemon=True).start()
        return replace(self, name, namespace, *args, **kwargs)

    Store.replace = watched  # type: ignore[method-assign]


def _die_at_new_file(folder: Path, before: set[Path]) -> None:
    while not set(folder.rglob("*.parquet")) - before:
        time.sleep(0.002)
    _die()


def _python_workers(parent: int) -> list[int]:
    """Process ids of Spark's Python workers below ``parent``: children of the daemon that forks them."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    below, todo = [], [parent]
    while todo:
        kids = children.get(todo.pop(), [])
        below += kids
        todo += kids
    return [p for p in below if _is_worker(p) and p not in children]


def _is_worker(pid: int) -> bool:
    try:
        # as a module that is run: the JVM's command line names it too, in a setting
        return b"-m\0recsys_spark.worker_daemon\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _kill_workers_in(stage: str, left: Path) -> None:
    """While ``stage`` runs, kill the first Python worker that is seen, and leave its id in a file as proof."""
    import recsys_spark.night as night

    step = getattr(night.Night, stage)

    def watched(self: Any, namespace: str) -> Any:
        thread = threading.Thread(target=_hunt, args=(left,), daemon=True)
        thread.start()
        return step(self, namespace)

    setattr(night.Night, stage, watched)


def _hunt(left: Path) -> None:
    while not left.exists():
        for pid in _python_workers(os.getpid())[:1]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            left.write_text(str(pid))
            return
        time.sleep(0.01)


def main() -> None:
    settings, kills = Path(sys.argv[1]), dict(kill.split(":", 1) for kill in sys.argv[2:])
    process.start()
    config = parse_config(json.loads(settings.read_text()))
    if "write" in kills:
        _during_write(kills["write"])
    if "worker" in kills:
        _kill_workers_in(kills["worker"], settings.with_suffix(f".{kills['worker']}"))
    spark = build_session(config.spark)
    run_night(config, spark, _after(*kills["after"].split(":")) if "after" in kills else None)


if __name__ == "__main__":
    main()
