"""The leave-one-out command's settings from a folder, its kept rows, and the table it prints."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmarks.quality.ablation import CASES
from recsys_spark.benchmark.folder import settings_for, sizes
from recsys_spark.benchmark.leave_one_out import mean_over_seeds
from recsys_spark.benchmark.published import Row, Table
from recsys_spark.benchmark.results import lines, once
from recsys_spark.errors import ConfigError, InputError


def _folder(path: Path, items: dict[str, Any] | None, **columns: Any) -> Path:
    pd.DataFrame({"user_id": ["a", "a", "b"], "item_id": ["x", "y", "x"]} | columns).to_parquet(path / "events.parquet")
    if items is not None:
        pd.DataFrame({"item_id": ["x", "y"]} | items).to_parquet(path / "items.parquet")
    return path


def test_columns_map_themselves(tmp_path: Path) -> None:
    words = " ".join(["word"] * 100)
    data = _folder(tmp_path, {"title": ["One", words], "brand": ["B", None], "price": [1.0, 2.0]}, ts=[1, 2, 3], rating=[1, 5, 4])
    found = settings_for(data, tmp_path / "w", 3, {"train": {"epochs": 2}, "encoder": {"dimension": 16}})
    assert found.ingest.events.columns == {"user_id": "user_id", "item_id": "item_id", "ts": "ts", "value": "rating"}
    assert found.ingest.items is not None
    assert found.ingest.items.template == "{title}. {brand}"
    assert (found.seed, found.train.epochs, found.train.batch_size, found.encoder.dimension) == (45, 2, 64, 16)
    assert found.encoder.max_tokens == 32  # nine of ten texts: the short one of the two
    assert found.recommend.popularity_half_life_days is None
    assert sizes(data) == (2, 2, 3)


def test_a_joined_text_stands_for_all_and_order_alone_is_enough(tmp_path: Path) -> None:
    long = " ".join(["word"] * 100)
    data = _folder(tmp_path, {"title": ["One", "Two"], "text": [long, long]}, pos=[0, 1, 0])
    found = settings_for(data, tmp_path / "w", 0, {})
    assert found.ingest.events.columns["event_pos"] == "pos"
    assert found.ingest.items is not None
    assert found.ingest.items.template == "{text}"
    assert found.encoder.max_tokens == 160  # 150 tokens, in steps of 32
    assert settings_for(_folder(tmp_path, None, pos=[0, 1, 0]), tmp_path / "w", 0, {}).train.batch_size == 64


def test_lists_of_texts_and_categories_are_words_and_links_are_not(tmp_path: Path) -> None:
    items = {
        "kind": pd.Categorical(["tea", None]),
        "tags": [["a", None, "b"], None],
        "sizes": [[1], [2]],
        "picture": ["https://shop/1.png", None],
        "site": ["made by hand", "www.b.org"],
        "none": [None, ""],
    }
    found = settings_for(_folder(tmp_path, items, ts=[1, 2, 3]), tmp_path / "w", 0, {}).ingest.items
    assert found is not None
    assert found.template == "{kind}. {tags}. {site}. {none}"
    wordless = settings_for(
        _folder(tmp_path, {"price": [1.0, 2.0], "url": ["http://a", "http://b"]}, ts=[1, 2, 3]), tmp_path, 0, {}
    )
    assert wordless.ingest.items is not None
    assert wordless.ingest.items.template == ""
    long = {"tags": [["word"] * 50, ["word word"] * 20]}
    assert settings_for(_folder(tmp_path, long, ts=[1, 2, 3]), tmp_path / "w", 0, {}).encoder.max_tokens == 64  # 40 words


@pytest.mark.parametrize(
    ("ts", "expected"),
    [
        ([1, 2, 1_700_000_000], "epoch_seconds"),
        ([1.5, 2.0, 1.7e9], "epoch_seconds"),
        ([1_600_000_000_000, 2, 1_700_000_000_000], "epoch_millis"),
        (["2023-01-01", "2023-01-02T03:04:05Z", None], "iso"),
        (pd.to_datetime(["2023-01-01", "2023-01-02", "2023-01-03"]), "epoch_seconds"),  # its type says what it is
        ([None, None, None], "epoch_seconds"),
    ],
)
def test_how_time_is_written_is_found_out(tmp_path: Path, ts: Any, expected: str) -> None:
    assert settings_for(_folder(tmp_path, None, ts=ts), tmp_path / "w", 0, {}).ingest.events.time_format == expected


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no events\.parquet"):
        settings_for(tmp_path, tmp_path, 0, {})
    with pytest.raises(InputError, match="user_id, item_id, and pos or ts"):
        settings_for(_folder(tmp_path, None), tmp_path, 0, {})
    with pytest.raises(ConfigError, match="epochs"):
        settings_for(_folder(tmp_path, None, ts=[1, 2, 3]), tmp_path, 0, {"train": {"epochz": 1}})


def _row(seed: int, value: float) -> dict[str, Any]:
    cell = {"all": [value, value - 0.01, value + 0.01, 50]} | ({"item_cold": [value, None, None, 2]} if seed else {})
    return {"row": "leave-one-out", "data": "d", "cold_share": 0.0, "seed": seed, "systems": {"fused": {"ndcg": cell}}}


def test_finished_rows_are_kept_by_settings(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> dict[str, Any]:
        made.append(1)
        return _row(0, 0.5)

    first = once(tmp_path, "d", {"seed": 0}, make)
    assert once(tmp_path, "d", {"seed": 0}, make)["systems"] == first["systems"]
    assert len(made) == 1
    once(tmp_path, "d", {"seed": 1}, make)
    assert len(made) == len(list(tmp_path.iterdir())) == 2
    assert json.loads(next(iter(tmp_path.iterdir())).read_text())["key"]["seed"] in (0, 1)


def test_means_and_lines() -> None:
    rows = [_row(1, 0.5), _row(0, 0.7)]
    mean = mean_over_seeds(rows)
    assert mean["seeds"] == 2
    assert mean["mean"] == {"fused": {"ndcg": {"all": pytest.approx(0.6), "item_cold": pytest.approx(0.5)}}}
    text = "\n".join(lines(mean, rows, Table("A table", (Row("theirs", {"ndcg": 0.41}),))))
    assert text.startswith("A table\ntheirs ")
    assert "0.4100" in text
    assert "0.6000 [0.4900, 0.5100]" in text  # the interval is the first seed's
    assert "  cold items" in text
    assert "NDCG@10" in text


def test_batches_grow_with_the_users(tmp_path: Path) -> None:
    users = [f"u{n}" for n in range(16_000)]
    pd.DataFrame({"user_id": users, "item_id": "x", "ts": 1}).to_parquet(tmp_path / "events.parquet")
    assert settings_for(tmp_path, tmp_path / "w", 0, {}).train.batch_size == 256
    assert settings_for(tmp_path, tmp_path / "w", 0, {"train": {"batch_size": 32}}).train.batch_size == 32


def test_every_case_of_the_ablation_is_a_config_of_its_own(tmp_path: Path) -> None:
    data = _folder(tmp_path, {"title": [" ".join(["word"] * n) for n in (100, 90)]}, pos=[0, 1, 0])
    cases = tomllib.loads(CASES.read_text(encoding="utf-8"))
    found = {name: settings_for(data, tmp_path / "w", 0, sections).identity() for name, sections in cases.items()}
    assert len(found) > 30
    assert len(set(map(str, found.values()))) == len(found)  # a case that changes nothing would tell nothing
