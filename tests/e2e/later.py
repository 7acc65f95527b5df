"""The debug fixture with events after its cutoff."""

from __future__ import annotations

import csv
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.debug_data import debug_config
from tests.e2e.conftest import Done

LATER = datetime(2024, 2, 2, tzinfo=UTC)  # a day after as_of
LATE_USERS = 40


def later_events(folder: Path) -> Path:
    """One event after the cutoff for each of 40 users."""
    path = folder / "late.csv"
    seconds = int(LATER.timestamp())
    with path.open("w", newline="") as out:
        rows = [(f"u{n}", f"i{n}", 5, seconds + n) for n in range(LATE_USERS)]
        csv.writer(out).writerows([("user", "item", "rating", "time"), *rows])
    return path


def with_later_events(done: Done, folder: Path, **overrides: Any) -> dict[str, Any]:
    settings: dict[str, Any] = debug_config(done.data, folder / "warehouse", **overrides)
    settings["ingest"]["events"]["path"] = [str(done.data / "events.csv"), str(later_events(folder))]
    return settings
