"""What a night decides without Spark."""

from __future__ import annotations

from typing import Any

from recsys_spark.collaborative.stage import asked
from recsys_spark.config import Config, parse_config
from recsys_spark.night import BASELINES, with_partners
from recsys_spark.recommend.model import fusion_weights


def _config(**recommend: Any) -> Config:
    columns = {"user_id": "u", "item_id": "i", "ts": "t"}
    return parse_config(
        {
            "as_of": "2026-11-22T00:00:00Z",
            "warehouse": "warehouse",
            "ingest": {"events": {"path": "log.csv", "columns": columns}},
            "recommend": recommend,
        }
    )


def test_a_baseline_is_ranked_where_its_partner_is_left_out_of_the_fused_lists() -> None:
    config = _config(partners=["encoder", "text"])
    for weights in BASELINES.values():
        alone = with_partners(config, weights).recommend
        assert fusion_weights(alone, weights, has_model=False) == weights
    assert config.recommend.partners == ["encoder", "text"]  # and the fused lists stay without it
    assert with_partners(config, {"text": 1.0}) is config  # the fingerprint of a run that needs nothing stays, too


def test_partners_that_nobody_reads_are_not_fitted() -> None:
    both = asked(_config())
    assert (both.ease.enabled, both.transitions.enabled) == ("auto", True)
    neither = asked(_config(partners=["encoder", "cooccurrence"]))
    assert (neither.ease.enabled, neither.transitions.enabled) == ("off", False)
    taught = _config(partners=["encoder", "transitions"])
    taught = taught.model_copy(update={"train": taught.train.model_copy(update={"teacher": "ease", "loss": "distillation"})})
    assert (asked(taught).ease.enabled, asked(taught).transitions.enabled) == ("auto", True)
