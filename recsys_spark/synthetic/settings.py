"""What a synthetic log is like; every fault is found before a job starts."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from recsys_spark.config.base import Settings, nearest
from recsys_spark.errors import ConfigError

LogFormat = Literal["parquet", "csv", "jsonl"]

MIN_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 3.0, 600.0  # mean pause of people: slower than robots, sessions stay whole
MAX_EVENTS_PER_USER = 100_000  # on average: a task makes all events of a user at once
MAX_TOPIC_DAYS = 10_000_000  # cells of a table that every worker holds


class SyntheticSettings(Settings):
    """Sizes, habits and flaws of a synthetic log. Rates and shares are between 0 and 1."""

    events: int = Field(1_000_000, ge=1, le=100_000_000_000)  # of people, expected
    items: int = Field(20_000, ge=2, le=50_000_000)
    users: int = Field(50_000, ge=1, le=1_000_000_000)
    seed: int = Field(1, ge=0)
    start: date = date(2024, 1, 1)  # first day, UTC
    days: int = Field(60, ge=4, le=3_650)
    zipf: float = Field(0.9, ge=0, le=3)  # an item's popularity is rank^-zipf
    topics: int = Field(50, ge=1, le=10_000)
    new_items: float = Field(0.2, ge=0, le=0.9)  # share of items that arrive after the first day
    drift: float = Field(0.5, ge=0, le=3)  # a topic's popularity swings by a factor exp(-drift) .. exp(drift)
    activity_sigma: float = Field(1.0, ge=0, le=3)  # of the log-normal number of events per user
    session_events: float = Field(6.0, ge=1, le=1_000)  # mean events of a session; who has fewer in all has one session
    session_minutes: float = Field(12.0, gt=0)  # mean length of a session
    preferred: float = Field(0.8, ge=0, le=1)  # share of sessions on one of the user's topics
    explore: float = Field(0.15, ge=0, le=1)  # share of views outside the session's topic
    next_item: float = Field(0.3, ge=0, le=1)  # share of events that go on to the next item of the topic
    cart: float = Field(0.1, ge=0, le=1)  # of views that are followed by a cart event, before exclusions
    purchase: float = Field(0.3, ge=0, le=1)  # of cart events that are followed by a purchase
    duplicates: float = Field(0.001, ge=0, le=0.5)  # share of people's rows that are written twice
    bad_rows: float = Field(0.001, ge=0, le=0.5)  # share of people's rows that are made bad
    robots: float = Field(0.0005, ge=0, le=1)  # robots per user, beside the users
    format: LogFormat = "parquet"
    graph: bool = True
    files: int | None = Field(None, ge=1)  # of events; None: one per million, at least 8

    @property
    def num_robots(self) -> int:
        return round(self.users * self.robots)

    @property
    def mean_pause_seconds(self) -> float:
        """Between two events of a session; a session of n events has n - 1 pauses."""
        return self.session_minutes * 60.0 / max(self.session_events - 1.0, 1.0)

    @property
    def end(self) -> date:
        """The first day after the log."""
        return self.start + timedelta(days=self.days)


def option(name: str) -> str:
    """A setting as the command line writes it."""
    return "--" + name.replace("_", "-")


def parse_settings(values: dict[str, Any], today: date | None = None) -> SyntheticSettings:
    """Check ``values`` alone and against each other.

    Args:
        today: the log must be over by then (UTC; default: now), since ingest takes later times for mistakes.

    Raises:
        ConfigError: the first fault.
    """
    try:
        settings = SyntheticSettings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        if first["type"] == "extra_forbidden":
            known = list(SyntheticSettings.model_fields)
            raise ConfigError(option(name), "no such setting", "a known one", nearest(name, known)) from None
        raise ConfigError(option(name), repr(first["input"]), first["msg"].removeprefix("Input should be ")) from None
    _check_sizes(settings)
    _check_times(settings, today or datetime.now(UTC).date())
    return settings


def _check_sizes(settings: SyntheticSettings) -> None:
    if settings.topics > settings.items:
        raise ConfigError(
            "--topics", f"{settings.topics} topics for {settings.items} items", "an item per topic or more", "raise --items"
        )
    if settings.topics * settings.days > MAX_TOPIC_DAYS:
        found = f"{settings.topics} topics x {settings.days} days"
        raise ConfigError("--topics", found, f"at most {MAX_TOPIC_DAYS:,} together", "lower --topics or --days")
    if settings.events > settings.users * MAX_EVENTS_PER_USER:
        found = f"{settings.events / settings.users:,.0f} events per user"
        raise ConfigError("--events", found, f"at most {MAX_EVENTS_PER_USER:,}", "raise --users")
    if settings.duplicates + settings.bad_rows > 0.5:
        found = f"--duplicates and --bad-rows together are {settings.duplicates + settings.bad_rows:g}"
        raise ConfigError("--bad-rows", found, "at most half of the rows", "lower one of them")


def _check_times(settings: SyntheticSettings, today: date) -> None:
    if settings.end > today:
        do = "choose an earlier --start or fewer --days"
        raise ConfigError("--start", f"the log would end on {settings.end}", f"an end by {today} (UTC)", do)
    pause = settings.mean_pause_seconds
    if not MIN_PAUSE_SECONDS <= pause <= MAX_PAUSE_SECONDS:
        expected = (
            f"{MIN_PAUSE_SECONDS:g} to {MAX_PAUSE_SECONDS:g}: people are slower than robots, and a longer pause ends a session"
        )
        do = "change --session-minutes or --session-events"
        raise ConfigError("--session-minutes", f"{pause:g} seconds between events", expected, do)


def clean_folder(text: str) -> Path:
    """The output folder as an absolute path.

    Raises:
        ConfigError: an address such as s3a://...; config and counts are written by this process, not by Spark.
    """
    if "://" in text:
        raise ConfigError("--out", text, "a folder of this machine, or of a mount that all executors share", "copy it afterwards")
    return Path(text).expanduser().absolute()
