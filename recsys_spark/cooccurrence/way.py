"""What is small is sent to every task, what is large goes to blocks: by size, unless a way is asked for; said in the log."""

from __future__ import annotations

from recsys_spark.config.signals import CooccurrenceSettings
from recsys_spark.log import get_logger

log = get_logger(__name__)


def is_broadcast(what: str, size_mib: int, settings: CooccurrenceSettings) -> bool:
    """Whether ``what``, of about this size, goes to the driver and from there to every task."""
    if settings.way != "auto":
        log.info(what, way=settings.way, reason="as configured")
        return settings.way == "broadcast"
    small, most = size_mib < settings.broadcast_below_mib, settings.broadcast_below_mib
    log.info(what, way="broadcast" if small else "blocked", reason=f"about {size_mib} MiB, broadcast below {most}")
    return small
