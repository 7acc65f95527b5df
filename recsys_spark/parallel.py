"""Independent work of the driver side by side: Spark plans in one thread, and small jobs leave the cluster idle between them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pyspark import SparkContext, inheritable_thread_target
from pyspark.sql import SparkSession


def side_by_side(*calls: Callable[[], Any]) -> list[Any]:
    """The results of the calls, in their order; none of them may need what another one writes.

    Their Spark jobs bear the label of the thread that asks for them.

    Raises:
        Exception: the first in the order of the calls, once all have ended, so that nothing still writes.
    """
    with ThreadPoolExecutor(max(1, len(calls)), thread_name_prefix="side-by-side") as pool:
        started = [pool.submit(_labelled(call)) for call in calls]
    return [future.result() for future in started]


def _labelled(call: Callable[[], Any]) -> Callable[[], Any]:
    """The call, in a thread that has what this one has set for its jobs."""
    if SparkContext._active_spark_context is None:
        return call
    # the default one where another thread has built it, as the command line's does
    labelled: Callable[[], Any] = inheritable_thread_target(SparkSession.active())(call)
    return labelled
