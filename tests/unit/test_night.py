"""What a night decides without Spark."""

from __future__ import annotations

from typing import Any, cast

from recsys_spark.config import parse_config
from recsys_spark.night import BASELINES, Night
from recsys_spark.recommend.fusion import Fusion


def test_without_a_model_lists_are_made_by_cooccurrence_whatever_the_weights() -> None:
    """A refused challenger must leave a night that publishes, though the config's weights name only the encoder."""
    columns = {"user_id": "u", "item_id": "i", "ts": "t"}
    config = parse_config(
        {
            "as_of": "2026-11-22T00:00:00Z",
            "warehouse": "warehouse",
            "ingest": {"events": {"path": "log.csv", "columns": columns}},
            "recommend": {"weights": {"encoder": 1.0}},
        }
    )
    assert Night(config, cast(Any, None))._fusion(None) == (Fusion(BASELINES["cooccurrence"]), None)
