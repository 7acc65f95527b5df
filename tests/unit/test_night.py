"""What a night decides without Spark."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from recsys_spark import memory, steps
from recsys_spark.collaborative.stage import asked
from recsys_spark.config import Config, parse_config
from recsys_spark.config.learning import TrainSettings
from recsys_spark.config.serving import EvaluateSettings
from recsys_spark.night import BASELINES, with_partners
from recsys_spark.recommend.model import fusion_weights
from recsys_spark.registry import ModelVersion
from recsys_spark.tables.visible import HoldoutCutoff


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


def test_a_stand_in_is_trained_on_the_machines_there_are_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = {"work_dir": "/mnt/old", "gpu": True, "ranks": 4, "local_ranks": False, "start_ranks": False, "batch_size": 7}
    (tmp_path / "recipe.json").write_text(json.dumps({"config": {"train": old}}))
    config = _config().model_copy(update={"train": TrainSettings(work_dir="/data/new", max_minutes=5.0)})
    found: list[Config] = []
    for name in ("_counted_for_training", "paired"):
        monkeypatch.setattr(steps, name, lambda config, _context: found.append(config))
    monkeypatch.setattr(steps.train, "run", lambda *_: SimpleNamespace(facts={"model_dir": "m"}))
    context: Any = SimpleNamespace(config=config)
    steps.stand_in(ModelVersion("m", 1), tmp_path, context)
    expected = TrainSettings(work_dir="/data/new", max_minutes=5.0, batch_size=7)
    assert [each.train for each in found] == [expected, expected]


@pytest.mark.parametrize(("name", "comparable"), [("table abc", True), ("table other", False)])
def test_a_champion_of_another_holdout_table_is_not_compared(name: str, comparable: bool) -> None:
    until = datetime(2026, 11, 22, tzinfo=UTC)
    config = _config().model_copy(update={"evaluate": EvaluateSettings(split="table", holdout_table="t")})
    evaluation: Any = SimpleNamespace(config=config, cutoff=HoldoutCutoff(None, until, name))  # type: ignore[arg-type]
    champion = ModelVersion("m", 1, {"trained_until": until.isoformat(), "split": "table abc"})
    assert steps.may_be_compared(champion, evaluation) is comparable


def test_what_files_hold_of_a_containers_memory_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_CONTAINER", tmp_path)
    figures = {"memory.max": "2000000", "memory.current": "1900000", "memory.stat": "anon 400000\ninactive_file 1500000\n"}
    for file, text in figures.items():
        (tmp_path / file).write_text(text)
    assert memory.free_bytes() == 1_600_000
    (tmp_path / "memory.stat").unlink()
    assert memory.free_bytes() == 100_000
