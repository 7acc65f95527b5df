"""Spark's daemon of Python workers, which loads what our tasks need before it forks: ``spark.python.daemon.module``.

A worker that is forked shares what the daemon has loaded. Without it each worker of an executor reads torch and the
others anew, seconds of processor time and hundreds of MiB per core, for tasks that often last less.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import sys
import zipimport
from pathlib import Path

NEEDED = ("numpy", "pandas", "pyarrow.parquet", "scipy.sparse", "sklearn.feature_extraction.text", "torch")


class StandingArchive(zipimport.zipimporter):
    """Imports from an archive as ever, but lists its files anew only when the archive has changed.

    Spark's worker asks every importer to look again before each task, and Python 3.11 then reads the directory of
    ``pyspark.zip``, some 1,300 files, in Python: 15 ms and more per task, which was most of what small tasks did.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._seen = _state(self.archive)

    def invalidate_caches(self) -> None:
        """Look again, if the archive is not the one that was listed."""
        state = _state(self.archive)
        if state is None or state != self._seen:
            super().invalidate_caches()
            self._seen = state


def _state(path: str) -> tuple[int, int, int] | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def keep_archives() -> None:
    """From now on archives on the path are imported from by ``StandingArchive``."""
    sys.path_hooks[:] = [StandingArchive if hook is zipimport.zipimporter else hook for hook in sys.path_hooks]
    for path, finder in list(sys.path_importer_cache.items()):
        if type(finder) is zipimport.zipimporter:
            sys.path_importer_cache[path] = StandingArchive(path)


def load(names: tuple[str, ...] = NEEDED) -> list[str]:
    """Import what there is of ``names``; returns it. A library that an executor lacks is missed by the task that needs it."""
    found = [name for name in names if importlib.util.find_spec(name.partition(".")[0]) is not None]
    for name in found:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # else the first collection in a worker would touch, and so copy, every page it shares
    return found


if __name__ == "__main__":
    from pyspark.daemon import manager

    keep_archives()
    load()
    manager()  # type: ignore[no-untyped-call]
