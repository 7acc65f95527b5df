"""What a benchmark measures beside the fused lists can have tables of its own."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from recsys_spark.benchmark.night import NO_PLACES, BenchmarkNight
from recsys_spark.config import parse_config
from recsys_spark.recommend import stage as recommend
from recsys_spark.recommend.fusion import Fusion
from recsys_spark.recommend.model import fusion_weights
from recsys_spark.registry import ModelVersion
from recsys_spark.tables.store import Store
from tests.debug_data import debug_config

NO_SESSION: Any = None


def test_no_seed_meets_the_model_of_the_seed_before(tmp_path: Path) -> None:
    night = BenchmarkNight(parse_config(debug_config(tmp_path, tmp_path / "w")), NO_SESSION, "benchmark/x", lambda frame: frame)
    champion = ModelVersion("debug", 1, {"trained_until": "2024-01-01T00:00:00+00:00"}, ("champion",))
    night.registry = SimpleNamespace(holder=lambda name, alias: champion)  # type: ignore[misc, assignment]
    assert night._opponent(ModelVersion("debug", 2)) is None


@pytest.mark.parametrize("places", [False, True])
def test_every_system_has_a_folder_of_its_own(tmp_path: Path, places: bool) -> None:
    settings: dict[str, Any] = debug_config(tmp_path, tmp_path / "warehouse")
    night = BenchmarkNight(parse_config(settings), NO_SESSION, "benchmark/x", lambda frame: frame, places=places)
    systems = [*night.baselines, *night.further_systems]
    assert (NO_PLACES in systems) is places
    folders = {Store(NO_SESSION, str(tmp_path)).path("recommendations", f"benchmark/x/systems/{name}") for name in systems}
    assert len(folders) == len(systems)


def test_a_rival_is_measured_where_our_lists_do_without_its_partner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = debug_config(tmp_path, tmp_path / "warehouse") | {"recommend": {"partners": ["encoder", "text"]}}
    night = BenchmarkNight(parse_config(settings), NO_SESSION, "benchmark/x", lambda frame: frame)
    found: dict[str, float] = {}

    def run(config: Any, _context: Any, _model: Any, fusion: Fusion, **_more: Any) -> None:
        found.update(fusion_weights(config.recommend, fusion.weights, has_model=False))

    monkeypatch.setattr(recommend, "run", run)
    monkeypatch.setattr(night, "_nested", lambda _name: None)
    night._alone("cooccurrence", None, Fusion({"cooccurrence": 1.0}), NO_SESSION)
    assert found == {"cooccurrence": 1.0}
