"""Moments: what one integer says of an event, and which settings it can hold."""

from __future__ import annotations

import zlib
from typing import Any

import pytest
from pydantic import ValidationError

from recsys_spark.config.learning import EncoderSettings
from recsys_spark.config.moments import moment_of, moment_parts


def taken_apart(moment: int, time_gaps: bool, context: list[str]) -> dict[str, int]:
    return {part.name: moment // part.unit % part.size for part in moment_parts(time_gaps, context)}


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [(0, 1), (1, 2), (2, 2), (3, 3), (62, 6), (63, 7), (86_400, 17), (2**30 - 1, 31), (10**12, 31), (-5, 1), (None, 0)],
)
def test_a_gap_is_the_number_of_binary_digits_of_its_seconds_plus_one(seconds: int | None, bucket: int) -> None:
    assert moment_of(moment_parts(True, []), {"gap_seconds": seconds}) == bucket


def test_each_part_can_be_read_again_and_0_is_not_known() -> None:
    context = ["hour", "device", "weekday", "shop"]
    row = {"gap_seconds": 5.0, "hour": 23, "weekday": 7, "context": {"device": "phone", "colour": "red"}}
    found = taken_apart(moment_of(moment_parts(True, context), row), True, context)
    device = found.pop("device")
    assert found == {"gap": 3, "hour": 24, "weekday": 7, "shop": 0}
    assert device == 1 + zlib.crc32(b"phone") % 511
    assert moment_of(moment_parts(True, context), {}) == 0
    assert moment_of(moment_parts(True, context), {"gap_seconds": float("nan"), "context": None}) == 0
    largest = moment_of(moment_parts(True, context), {"gap_seconds": 1e12, "hour": 99, "weekday": 99})
    assert largest + 511 * 32 * 25 + 511 * 32 * 25 * 512 * 8 < 2**31


def test_a_query_is_the_last_part_and_all_parts_together_stay_below_63_bits() -> None:
    parts = moment_parts(True, ["hour", "device", "weekday", "shop"], "search")
    assert [part.is_query for part in parts] == [False] * 5 + [True]
    moment = moment_of(parts, {"gap_seconds": 5, "context": {"search": "red shoes é"}})
    assert moment // parts[-1].unit == 1 + zlib.crc32("red shoes é".encode()) % (2**32 - 1)
    assert moment % parts[-1].unit == 3
    assert sum(part.unit * (part.size - 1) for part in parts) < 2**63
    assert moment_of(parts, {"context": {"device": "phone"}}) // parts[-1].unit == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query_key": "device", "context": ["device"]}, "'device' is in context too"),
        ({"query_key": "hour"}, "means a time"),
        ({"query_key": "search", "text_training": "full"}, "needs text_training = 'frozen'"),
    ],
)
def test_what_cannot_be_a_query_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        EncoderSettings(**changes)


@pytest.mark.parametrize(
    ("context", "message"),
    [(["a", "b", "c"], "at most 2 keys"), (["hour", "hour"], "names each thing once"), (["gap"], "that is time_gaps")],
)
def test_what_does_not_fit_is_refused(context: list[str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        EncoderSettings(context=context)
