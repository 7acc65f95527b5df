"""When people come: how many events each user has, how these fall into sessions, and the time of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from recsys_spark.synthetic.catalogue import Floats, Ints
from recsys_spark.synthetic.randomness import Stream, generator
from recsys_spark.synthetic.settings import SyntheticSettings

DAY_MS, HOUR_MS = 86_400_000, 3_600_000
LONGEST_PAUSE_MS = 25 * 60_000  # ingest ends a session after 30 minutes
# share of sessions that start in each hour (UTC): a quiet night, a lunch break, an evening peak
_HOURS = np.array([12, 8, 5, 4, 4, 6, 12, 22, 32, 40, 44, 48, 54, 52, 46, 44, 46, 52, 62, 74, 82, 76, 52, 26], float)
_HOUR_SUMS = np.cumsum(_HOURS) / _HOURS.sum()


@dataclass(frozen=True)
class Sessions:
    """E events in S sessions of the users of a block; events of a user, and of a session, lie together.

    Args:
        user: ``[E]``, place of the user in the block.
        number: ``[E]``, 0-based number of the event among the user's.
        session: ``[E]``, place of the event's session.
        opens: ``[E]``, whether the event is the first of its session.
        ts_ms: ``[E]``, milliseconds after the start of the log.
        session_user: ``[S]``.
        session_day: ``[S]``, days after the start of the log, of the session's first event.
    """

    user: Ints
    number: Ints
    session: Ints
    opens: npt.NDArray[np.bool_]
    ts_ms: Ints
    session_user: Ints
    session_day: Ints


def event_counts(settings: SyntheticSettings, block: int, num_users: int) -> Ints:
    """Events per user, ``[num_users]``: log-normal with mean events / users.

    The draws are stratified (one in each of num_users equal shares of the distribution, in random order), so that the sum
    of a block hardly strays from its expectation.
    """
    rng = generator(settings.seed, Stream.ACTIVITY, block)
    share = (rng.permutation(num_users) + rng.random(num_users)) / num_users
    sigma = settings.activity_sigma
    mean = settings.events / settings.users
    expected = mean * np.exp(sigma * ndtri(np.clip(share, 1e-12, 1 - 1e-12)) - sigma * sigma / 2)
    counts: Ints = np.floor(expected + rng.random(num_users)).astype(np.int64)
    return counts


def sessions(settings: SyntheticSettings, block: int, num_users: int) -> Sessions:
    """The sessions of one block of users, about geometric in length. Two of a user may overlap, if both begin within minutes."""
    counts = event_counts(settings, block, num_users)
    rng = generator(settings.seed, Stream.SESSIONS, block)
    user = np.repeat(np.arange(num_users, dtype=np.int32), counts)
    total = len(user)
    first_of_user = np.cumsum(counts) - counts
    opens = rng.random(total) < np.repeat(_chance_to_open(counts, settings.session_events), counts)
    opens[first_of_user[counts > 0]] = True
    session = np.cumsum(opens) - 1
    first = np.flatnonzero(opens)
    session_user = user[first]
    offset = _offsets(settings, rng, opens, session, first)
    last = offset[np.append(first[1:], total) - 1] if total else offset
    start = _starts(settings, rng, session_user, last)
    latest = settings.days * DAY_MS - 1
    return Sessions(
        user=user,
        number=np.arange(total) - np.repeat(first_of_user, counts),
        session=session,
        opens=opens,
        ts_ms=np.minimum(start[session] + offset, latest),
        session_user=session_user,
        session_day=start // DAY_MS,
    )


def _chance_to_open(counts: Ints, session_events: float) -> Floats:
    """Chance that an event which is not the user's first opens a session, so that a user of n events has n / session_events
    sessions in expectation, but at least one: 1 + (n - 1) p = n / session_events."""
    chance: Floats = np.clip((counts / session_events - 1.0) / np.maximum(counts - 1, 1), 0.0, 1.0)
    return chance


def _offsets(
    settings: SyntheticSettings, rng: np.random.Generator, opens: npt.NDArray[np.bool_], session: Ints, first: Ints
) -> Ints:
    """Milliseconds of each event after the first of its session: exponential pauses, cut at ``LONGEST_PAUSE_MS``."""
    pause = rng.standard_exponential(len(opens)) * (settings.mean_pause_seconds * 1_000)
    pause = np.minimum(pause, LONGEST_PAUSE_MS).astype(np.int64)
    pause[opens] = 0
    passed = np.cumsum(pause)
    offsets: Ints = passed - passed[first][session]
    return offsets


def _starts(settings: SyntheticSettings, rng: np.random.Generator, session_user: Ints, last: Ints) -> Ints:
    """Start of each session in ms, ascending per user; those that would outlast the log begin earlier.

    Args:
        last: ``[S]``, offset of the session's last event.
    """
    count, span = len(session_user), settings.days * DAY_MS
    hour = np.searchsorted(_HOUR_SUMS, rng.random(count), side="right").clip(0, 23)
    within: Floats = rng.random(count)
    start = rng.integers(0, settings.days, count) * DAY_MS + hour * HOUR_MS + (within * HOUR_MS).astype(np.int64)
    key = np.sort(session_user.astype(np.int64) * span + start)
    ascending = key - session_user.astype(np.int64) * span
    starts: Ints = np.clip(ascending, 0, np.maximum(span - 1 - last, 0))
    return starts
