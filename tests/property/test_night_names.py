"""A night's id says its as_of, whatever zone that was written in; other names are no night's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from recsys_spark.night_names import as_of_in, run_id_of, stamp

ZONES = st.integers(-12, 14).map(lambda hours: timezone(timedelta(hours=hours)))
MOMENTS = st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1), timezones=ZONES).map(lambda at: at.replace(microsecond=0))


@given(MOMENTS, st.text("0123456789abcdef", min_size=8, max_size=64))
def test_the_id_gives_back_the_instant(as_of: datetime, digest: str) -> None:
    run_id = run_id_of(as_of, digest)
    assert as_of_in(run_id) == as_of.astimezone(UTC).replace(tzinfo=None)
    assert run_id.endswith(digest[:8])


@given(st.sampled_from(["live", "20261122T000000", "20261122T000000-xyz", "seed0", "20261122T000000-0123abcd/systems", ""]))
def test_no_other_name_is_a_nights(name: str) -> None:
    assert as_of_in(name) is None


def test_the_stamp_is_written_out() -> None:
    assert stamp(datetime(2026, 11, 22, 1, 2, 3, tzinfo=UTC)) == "20261122T010203"
    assert stamp(datetime(2026, 11, 22, 1, 2, 3, tzinfo=timezone(timedelta(hours=2)))) == "20261121T230203"
