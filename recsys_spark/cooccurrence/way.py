"""How baskets get to the tasks that count them: asked for, or chosen by where tasks run and by size; said in the log."""

from __future__ import annotations

from typing import Literal

from recsys_spark.config.signals import CooccurrenceSettings
from recsys_spark.errors import MachineError
from recsys_spark.log import get_logger

log = get_logger(__name__)

Way = Literal["blocked", "broadcast", "files"]


def is_broadcast(what: str, size_mib: int, settings: CooccurrenceSettings) -> bool:
    """Whether ``what``, of about this size, goes to the driver and from there to every task."""
    if settings.way in ("blocked", "broadcast"):
        log.info(what, way=settings.way, reason="as configured")
        return settings.way == "broadcast"
    small, most = size_mib < settings.broadcast_below_mib, settings.broadcast_below_mib
    log.info(what, way="broadcast" if small else "blocked", reason=f"about {size_mib} MiB, broadcast below {most}")
    return small


def way_of_baskets(size_mib: int, settings: CooccurrenceSettings, one_machine: bool) -> Way:
    """Through files where tasks share a disk, else by size.

    Raises:
        MachineError: files are asked for, and tasks run elsewhere.
    """
    if settings.way == "files" and not one_machine:
        raise MachineError(
            "[cooccurrence] way",
            "'files', and executors on other machines",
            "a local session, whose tasks see one disk",
            "set way = 'auto'",
        )
    if settings.way == "files" or (settings.way == "auto" and one_machine):
        log.info("baskets", way="files", reason="as configured" if settings.way == "files" else "tasks share a disk")
        return "files"
    return "broadcast" if is_broadcast("baskets", size_mib, settings) else "blocked"
