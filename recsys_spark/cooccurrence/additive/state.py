"""What the additive state was made of: carried by the commit that made it, so that rows and this never disagree."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from recsys_spark.code_version import code_version
from recsys_spark.config.signals import CooccurrenceSettings

TABLE = "cooccurrence_deltas"
_KEY = "state"  # in the commit's metadata
_OF_THE_TABLE = {
    "measures", "rank_by", "shrinkage", "min_support", "min_users", "min_llr", "top_n", "incremental", "fold_after",
    "way", "broadcast_below_mib", "swing_alpha", "swing_power", "swing_max_baskets", "bm25_k1", "bm25_b",
}  # fmt: skip
_MAX_HALF_LIVES = 500  # 2^500: far from what a double cannot hold


@dataclass(frozen=True)
class State:
    """One state.

    Args:
        rules: digest of the settings (and code) that decide what a basket contributes.
        events_id, events_version: the table of events that it has seen, and up to which commit.
        robots_version: of table robots, the users left out.
        until: events before this instant are in it.
        reference: the instant at which a pair weighs 1 in its decayed counts, for as long as it lives.
        batches: commits since it was last summed.
        facts: those of ``tasks.baskets_of`` over all its baskets.
    """

    rules: str
    events_id: str
    events_version: int
    robots_version: int
    until: datetime
    reference: datetime
    batches: int
    facts: dict[str, Any]

    def document(self) -> dict[str, Any]:
        """For the commit's metadata."""
        instants = {"until": self.until.isoformat(), "reference": self.reference.isoformat()}
        return {_KEY: json.dumps(asdict(self) | instants, sort_keys=True)}

    @classmethod
    def of_commit(cls, facts: Mapping[str, Any]) -> State | None:
        """The state whose commit told these facts; None where it told of none."""
        if _KEY not in facts:
            return None
        found = json.loads(facts[_KEY])
        return cls(**found | {name: datetime.fromisoformat(found[name]) for name in ("until", "reference")})

    def sees_the_same_as(self, other: State) -> bool:
        """Whether nothing has to be added or taken away."""
        return _seen(self) == _seen(other)

    def scale(self, settings: CooccurrenceSettings, reference: datetime) -> float:
        """Turns its decayed counts into those that refer to another instant."""
        if settings.half_life_days is None:
            return 1.0
        return float(2.0 ** ((self.reference - reference).total_seconds() / 86_400 / settings.half_life_days))


def _seen(state: State) -> State:
    return replace(state, rules="", batches=0, facts={}, reference=state.until)


def rules_of(settings: CooccurrenceSettings, seed: int) -> str:
    """Digest of what decides what a basket contributes."""
    document = [settings.model_dump(mode="json", exclude=_OF_THE_TABLE), seed, code_version()]
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]


def why_anew(present: State | None, wanted: State, settings: CooccurrenceSettings, has_feed: bool) -> str | None:
    """Why the state cannot be brought from ``present`` to what ``wanted`` sees by what has changed; None: it can."""
    if present is None:
        return "there is none yet"
    if present.rules != wanted.rules:
        return "settings or code have changed"
    if present.events_id != wanted.events_id or present.events_version > wanted.events_version:
        return "table events has been made anew"
    if present.events_version < wanted.events_version and not has_feed:
        return "table events does not record its changes (set its property delta.enableChangeDataFeed = true)"
    if settings.half_life_days is not None:
        half_lives = abs((wanted.until - present.reference).total_seconds()) / 86_400 / settings.half_life_days
        if half_lives > _MAX_HALF_LIVES:
            return f"its reference time is {half_lives:.0f} half-lives away"
    return None


def utc(moment: datetime) -> datetime:
    """The same instant in UTC, as a state carries it."""
    return moment.astimezone(UTC)
