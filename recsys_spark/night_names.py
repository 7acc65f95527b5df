"""How a night is called after its ``as_of``: in run ids, in namespaces made of them, and in receipts."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_STAMP = "%Y%m%dT%H%M%S"
_RUN_ID = re.compile(r"(\d{8}T\d{6})-[0-9a-f]{8}")


def stamp(as_of: datetime) -> str:
    """``20261122T000000``, in UTC."""
    return (as_of if as_of.tzinfo is None else as_of.astimezone(UTC)).strftime(_STAMP)


def run_id_of(as_of: datetime, digest: str) -> str:
    """The id of a night; ``digest`` (hexadecimal) tells nights of one ``as_of`` from each other by its first eight digits."""
    return f"{stamp(as_of)}-{digest[:8]}"


def as_of_in(run_id: str) -> datetime | None:
    """The ``as_of`` (UTC, without a zone, as Spark gives it) of a night by its id; None where the name is no night's."""
    parts = _RUN_ID.fullmatch(run_id)
    return datetime.strptime(parts[1], _STAMP) if parts else None
