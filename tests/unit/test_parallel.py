"""Work side by side: results in order, errors in order, nothing still running after."""

from __future__ import annotations

from threading import Barrier, Event

import pytest

from recsys_spark.parallel import side_by_side


def test_results_come_in_the_order_of_the_calls() -> None:
    second_done = Event()

    def first() -> str:
        assert second_done.wait(30)  # ends after the second: they do run at the same time
        return "first"

    def second() -> str:
        second_done.set()
        return "second"

    assert side_by_side(first, second) == ["first", "second"]


def test_the_first_error_is_raised_when_all_have_ended() -> None:
    meeting, ended = Barrier(2, timeout=30), []

    def fails() -> None:
        meeting.wait()
        raise ValueError("first")

    def fails_too() -> None:
        meeting.wait()
        ended.append(True)
        raise KeyError("second")

    with pytest.raises(ValueError, match="first"):
        side_by_side(fails, fails_too)
    assert ended == [True]


def test_nothing_to_do_is_nothing_done() -> None:
    assert side_by_side() == []
