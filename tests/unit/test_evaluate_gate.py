"""The gate's rule, case by case."""

from __future__ import annotations

import pytest

from recsys_spark.config.serving import GateSettings
from recsys_spark.errors import InputError
from recsys_spark.evaluate.gate import decide, differences
from recsys_spark.evaluate.significance import Interval

SETTINGS = GateSettings(metric="ndcg", k=10, margin=0.01)
BETTER, WORSE = Interval(0.02, 0.005, 0.03), Interval(-0.02, -0.03, -0.01)


@pytest.mark.parametrize(("low", "passed"), [(-0.0099, True), (-0.01, False), (-0.02, False), (0.001, True)])
def test_against_a_champion_the_lower_end_must_lie_above_the_margin(low: float, passed: bool) -> None:
    found = decide({"champion": Interval(0.0, low, 0.02), "popularity": WORSE, "cooccurrence": WORSE}, SETTINGS)
    assert found.passed is passed
    assert found.publish == "encoder"  # the standing champion's lists when it did not pass
    assert ("becomes champion" in found.reason) is passed
    assert "ndcg@10 against champion +0.0000" in found.reason


def test_without_a_champion_both_baselines_must_be_beaten() -> None:
    assert decide({"popularity": BETTER, "cooccurrence": BETTER}, SETTINGS).passed
    found = decide({"popularity": BETTER, "cooccurrence": WORSE}, SETTINGS)
    assert (found.passed, found.publish) == (False, "cooccurrence")
    assert "does not beat cooccurrence:" in found.reason
    within_noise = Interval(0.004, -0.008, 0.015)
    assert decide({"popularity": BETTER, "cooccurrence": within_noise}, SETTINGS).passed
    assert not decide({"popularity": BETTER, "cooccurrence": within_noise}, GateSettings(margin=0.0)).passed
    not_better = Interval(-0.001, -0.005, 0.004)  # inside the margin, but the mean is no gain
    assert not decide({"popularity": not_better, "cooccurrence": BETTER}, SETTINGS).passed


def test_no_champion_and_no_baseline_is_an_error() -> None:
    with pytest.raises(InputError, match="no difference to cooccurrence"):
        decide({"popularity": BETTER}, SETTINGS)


def test_differences_are_read_from_the_rows_of_metrics() -> None:
    rows = [
        {"system": "fused - popularity", "name": "ndcg", "k": 10, "segment": "all", "value": 0.3, "low": 0.2, "high": 0.4},
        {"system": "fused - popularity", "name": "ndcg", "k": 5, "segment": "all", "value": 0.9, "low": 0.9, "high": 0.9},
        {"system": "fused - popularity", "name": "ndcg", "k": 10, "segment": "item_tail", "value": 9, "low": 9, "high": 9},
        {"system": "fused", "name": "ndcg", "k": 10, "segment": "all", "value": 0.5, "low": 0.4, "high": 0.6},
    ]
    assert differences(rows, SETTINGS) == {"popularity": Interval(0.3, 0.2, 0.4)}
