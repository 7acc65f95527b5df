"""Spark's daemon of Python workers, which loads what our tasks need before it forks: ``spark.python.daemon.module``.

A worker that is forked shares what the daemon has loaded. Without it each worker of an executor reads torch and the
others anew, seconds of processor time and hundreds of MiB per core, for tasks that often last less.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util

NEEDED = ("numpy", "pandas", "pyarrow", "scipy.sparse", "sklearn.feature_extraction.text", "torch")


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

    load()
    manager()  # type: ignore[no-untyped-call]
