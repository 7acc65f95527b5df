"""Settings: strict keys with the nearest known one named, and every shipped config loads."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest

from recsys_spark.config import load_config, parse_config
from recsys_spark.config.serving import GateMetric
from recsys_spark.errors import ConfigError
from recsys_spark.evaluate.metrics import RANKING
from tests.debug_data import debug_config

ROOT = Path(__file__).resolve().parents[2]
MINIMAL: dict[str, Any] = {
    "as_of": "2024-01-01",
    "warehouse": "w",
    "ingest": {"events": {"path": "x", "columns": {"user_id": "u", "item_id": "i", "ts": "t"}}},
}
SHIPPED = sorted((ROOT / "conf").rglob("*.toml"))

EVENTS = {"path": "log.csv", "columns": {"user_id": "u", "item_id": "i", "ts": "t"}}


def _with(path: str, value: object) -> dict[str, Any]:
    config: dict[str, Any] = debug_config(Path("data"), Path("warehouse"))
    *parents, key = path.split(".")
    place = config
    for parent in parents:
        place = place.setdefault(parent, {})
    place[key] = value
    return config


def test_where_things_lie_is_no_part_of_a_nights_identity() -> None:
    same = parse_config(_with("ingest.events.path", ["elsewhere.csv", "later.csv"])).identity()
    for key, value in (("ingest.items.path", "x.csv"), ("warehouse", "other"), ("train.work_dir", "models")):
        assert parse_config(_with(key, value)).identity() == same, key
    others = (("ingest.events.dislike_at_most", 2.0), ("train.epochs", 4), ("ingest.robots", {"max_z_score": 3.0}))
    for key, value in (*others, ("search.short_list", 9)):  # how neighbours are searched for decides which are found
        assert parse_config(_with(key, value)).identity() != same, key


def test_there_are_shipped_configs() -> None:
    assert SHIPPED


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.name)
def test_every_shipped_config_loads_and_starts_with_its_command(path: Path) -> None:
    load_config(path)
    assert "recsys-spark run --config" in path.read_text().splitlines()[0]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("trian", {}, "did you mean 'train'?"),
        ("train.epoch", 3, "did you mean 'epochs'?"),
        ("ingest.events.colums", {}, "did you mean 'columns'?"),
        ("pairs.text.min_similarty", 0.2, "did you mean 'min_similarity'?"),
        ("search.exakt_below", 2, "did you mean 'exact_below'?"),
    ],
)
def test_unknown_key_names_the_nearest(key: str, value: object, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(_with(key, value))
    assert f"unknown key '{key.split('.')[-1]}'" in str(caught.value)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("train.epochs", "many", "'epochs' is 'many'"),
        ("train.epochs", 0, "'epochs' is 0"),
        ("recommend.new_items_per_ten", 10, "less than or equal to 9"),
        ("cooccurrence.rank_by", "cosin", "'rank_by' is 'cosin'"),
        ("name", "a/b", "'name' is 'a/b'"),
        ("train.epochs", "many", "expected a valid integer"),
        ("search", {"recall_target": 0.9}, "config [search]: recall_floor must be at most recall_target"),
        ("ingest.events.columns", {"item_id": "i", "ts": "t"}, "config [ingest.events]: columns must map 'user_id'"),
        ("recommend.weights", {"encodr": 1.0}, "recommend.weights: no partner is called 'encodr'; did you mean 'encoder'?"),
        ("recommend.profile_weights", {"cooccurrence": 1.0}, "recommend.profile_weights: no partner is called 'cooccurrence'"),
        ("recommend.weights", {"text": -1.0}, "greater than or equal to 0"),
        ("recommend.active_days", 0, "greater than or equal to 1"),
        ("recommend.segment_key", "contry", "recommend.segment_key names 'contry', which neither events nor users have"),
        ("recommend.context_key", "contry", "ingest reads none"),
        (
            "warehouse",
            "s3a://lake/w",
            "is on no disk of this machine: set train.work_dir, registry.tracking_uri, publish.report_dir",
        ),
        ("warehouse", "/data/a%41b", "'%41' means something else in a URL"),
        ("warehouse", "/data/a#b", "'#' means something else in a URL"),
        ("registry.model_name", "Läden", "'model_name' is 'Läden'"),
        ("ingest.events.event_weights", {"view": -2.0}, "greater than or equal to 0"),
        ("cooccurrence.rank_by", "decayed_cosine", "decayed_cosine needs half_life_days, or a distance_decay below 1"),
        ("cooccurrence", {"half_life_days": 3.0, "shrinkage": 2.0}, "shrinkage is not for decayed_cosine"),
        ("ingest.events.columns", {"user_id": "u", "item_id": "i", "ts": "t", "evnt_type": "k"}, "did you mean 'event_type'?"),
        ("ingest.items.columns", {"title": "title"}, "config [ingest.items]: columns must map 'item_id'"),
        ("ingest.items.columns", {"item_id": "item", "titel": "title"}, "columns maps 'titel', which nothing reads"),
        ("ingest.items.template", "{title", "a brace that belongs to no field"),
        ("ingest.items.template", "title", "names no field: every text would be the same"),
        ("ingest.events.path", "", "path names no file"),
        ("ingest.events.path", [], "path names no file"),
        ("ingest.events.encoding", "utf-99", "encoding = 'utf-99' is not known"),
        ("ingest.events", {**EVENTS, "format": "jsonl", "encoding": "latin-1"}, "encoding is of CSV and TSV files"),
        ("ingest.events", {**EVENTS, "event_weights": {"buy": 2.0}}, "no event is of a type in event_weights"),
        ("ingest.events", {**EVENTS, "like_at_least": 3.0}, "go by values: map columns.value"),
        ("ingest.events.like_at_least", 1.0, "like_at_least = 1.0 must be above dislike_at_most"),
        ("encoder.attributes", ["brnd"], "encoder.attributes names 'brnd', which no item has"),
        ("embed", {"profile_users": True}, "embed.profile_users needs [ingest.users]"),
        ("recommend.rerank", {"diversity": "high"}, "'diversity' is 'high'"),
        ("as_of", 20261108, "as_of = 20261108 is a number: write a date"),
        ("gate", {"metric": "nDCG"}, "'metric' is 'nDCG'; expected 'recall', 'precision'"),
        ("gate", {"k": 50}, "gate.k = 50 is beyond the lists, recommend.k = 10: set gate.k too"),
        ("evaluate.ks", [5, 0], "greater than or equal to 1"),
        ("pairs.max_history", 500, "config: encoder.max_history must be at least pairs.max_history"),
    ],
)
def test_wrong_value_is_shown(key: str, value: object, found: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(_with(key, value))
    assert found in str(caught.value)


def test_a_misspelt_key_that_is_needed_is_unknown_first() -> None:
    config = debug_config(Path("data"), Path("warehouse"))
    config["warehuse"] = config.pop("warehouse")
    with pytest.raises(ConfigError, match=r"unknown key 'warehuse'.*did you mean 'warehouse'"):
        parse_config(config)


def test_today_may_stand_in_the_file() -> None:
    assert parse_config(_with("as_of", "today")).as_of.hour == 0


def test_missing_key_is_named() -> None:
    config = debug_config(Path("data"), Path("warehouse"))
    del config["as_of"]
    with pytest.raises(ConfigError, match="key 'as_of' is missing"):
        parse_config(config)


def test_event_columns_must_map_ids() -> None:
    with pytest.raises(ConfigError, match="columns must map 'item_id'"):
        parse_config(_with("ingest.events.columns", {"user_id": "user", "ts": "time"}))


def test_as_of_is_utc(tmp_path: Path) -> None:
    assert parse_config(_with("as_of", "2024-01-01T02:00:00+02:00")).as_of == datetime(2024, 1, 1, tzinfo=UTC)


def test_as_of_override() -> None:
    assert load_config(SHIPPED[0], "2001-02-03").as_of == datetime(2001, 2, 3, tzinfo=UTC)
    with pytest.raises(ConfigError, match="ISO date"):
        load_config(SHIPPED[0], "yesterday")


def test_today_is_the_last_midnight() -> None:
    before = datetime.now(UTC)
    found = load_config(SHIPPED[0], "today").as_of
    midnights = {now.replace(hour=0, minute=0, second=0, microsecond=0) for now in (before, datetime.now(UTC))}
    assert found in midnights


def test_limits_are_of_attributes_that_items_have() -> None:
    settings = parse_config(_with("recommend.rerank", {"max_per_ten": {"category": 3}}))
    assert settings.recommend.rerank.max_per_ten == {"category": 3}
    with pytest.raises(ConfigError, match="max_per_ten names 'categry', which no item has; did you mean 'category'"):
        parse_config(_with("recommend.rerank", {"max_per_ten": {"categry": 3}}))
    config = _with("recommend.rerank", {"max_per_ten": {"brand": 3}})
    del config["ingest"]["items"]
    with pytest.raises(ConfigError, match=r"ingest\.items reads none"):
        parse_config(config)


def test_shown_types_need_types() -> None:
    with pytest.raises(ConfigError, match="shown_types needs event types"):
        parse_config(_with("pairs.negatives", {"shown_types": ["shown"]}) | {"evaluate": {"split": "time"}})


def test_what_lies_beside_a_warehouse() -> None:
    assert parse_config(_with("warehouse", "file:///data/x/w")).work_dir == Path("/data/x/models")
    assert parse_config(_with("warehouse", "/data/50% off/w")).tracking_uri == "sqlite:////data/50% off/mlflow.db"
    away = {"train": {"work_dir": "/m"}, "registry": {"tracking_uri": "http://mlflow"}, "publish": {"report_dir": "/r"}}
    assert parse_config(_with("warehouse", "s3a://lake/w") | away).work_dir == Path("/m")


def test_who_has_pairs_decay_ranks_by_what_is_left() -> None:
    found = [
        parse_config(_with("cooccurrence", c)).cooccurrence.rank_by
        for c in ({}, {"half_life_days": 2.0}, {"distance_decay": 0.5})
    ]
    assert found == ["cosine", "decayed_cosine", "decayed_cosine"]
    assert parse_config(_with("cooccurrence", {"half_life_days": 2.0, "rank_by": "llr"})).cooccurrence.rank_by == "llr"


def test_the_gate_looks_at_the_whole_of_shorter_lists() -> None:
    assert [parse_config(_with("recommend.k", k)).gate.k for k in (3, 10, 40)] == [3, 10, 10]
    assert parse_config(_with("recommend.k", 5) | {"gate": {"k": 2}}).gate.k == 2


def test_a_gate_goes_by_what_is_measured() -> None:
    assert set(get_args(GateMetric)) == set(RANKING)


def test_lists_need_vectors_that_are_long_enough() -> None:
    assert parse_config(_with("recommend", {"dimensions": 64}) | {"encoder": {"dimension": 64}}).recommend.dimensions == 64
    with pytest.raises(ConfigError, match=r"recommend\.dimensions = 65, but vectors have encoder\.dimension = 64"):
        parse_config(_with("recommend", {"dimensions": 65}) | {"encoder": {"dimension": 64}})


def test_a_diversity_is_a_number_or_chosen_with_the_weights() -> None:
    assert parse_config(_with("recommend.rerank", {"diversity": "auto"})).recommend.rerank.diversity == "auto"
    both = {"weights": {"text": 1.0}, "rerank": {"diversity": "auto"}}
    with pytest.raises(ConfigError, match="'auto' is chosen with the weights, which are given"):
        parse_config(_with("recommend", both))
    for wrong in ({"diversity": 1.5}, {"max_per_ten": {"category": 0}}, {"diversity": "much"}):
        with pytest.raises(ConfigError, match=r"recommend\.rerank"):
            parse_config(_with("recommend.rerank", wrong))


def test_files_that_are_no_text_of_ours(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory; expected a TOML config"):
        load_config(tmp_path)
    path = tmp_path / "c.toml"
    path.write_bytes(SHIPPED[0].read_text().replace("name", "# ä\nname", 1).encode("latin-1", "replace"))
    with pytest.raises(ConfigError, match=r"not UTF-8: .*expected a TOML config in UTF-8"):
        load_config(path)
    path.write_text(SHIPPED[0].read_text(), encoding="utf-8-sig")  # as some editors save it
    assert load_config(path) == load_config(SHIPPED[0])


def test_absent_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("name = ")
    with pytest.raises(ConfigError, match="not TOML"):
        load_config(broken)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train.explicit_share": 0.1}, "needs pairs.negatives.per_user above 0"),
        ({"pairs.negatives": {"shown_types": ["view"]}}, "needs evaluate.split = 'time'"),
        ({"pairs.negatives": {"mined_first": 9, "mined_last": 5}}, "mined_last = 5 is before mined_first = 9"),
    ],
)
def test_negatives_that_do_not_go_with_the_rest_are_refused(changes: dict[str, Any], said: str) -> None:
    for key, value in changes.items():
        with pytest.raises(ConfigError, match=said):
            parse_config(_with(key, value))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train.outcome_share": 0.1}, r"needs pairs.outcomes.about = 'type' or 'like'"),
        ({"pairs.outcomes": {"about": "type"}}, r"about = 'type' needs wanted_types"),
        ({"pairs.outcomes": {"about": "like", "wanted_types": ["buy"]}}, r"wanted_types with about = 'like'"),
        ({"pairs.outcomes": {"about": "like"}}, r"needs ingest.events.like_at_least and dislike_at_most"),
        ({"pairs.outcomes": {"about": "type", "wanted_types": ["buy"]}}, r"map ingest.events.columns.event_type"),
    ],
)
def test_outcomes_that_no_event_could_tell_are_refused(changes: dict[str, Any], said: str) -> None:
    for key, value in changes.items():
        with pytest.raises(ConfigError, match=said):
            parse_config(_with(key, value))


def test_outcomes_of_types_that_never_come_are_refused() -> None:
    columns = {"user_id": "u", "item_id": "i", "ts": "t", "event_type": "e"}
    asked = {"outcomes": {"about": "type", "wanted_types": ["buy"]}}
    for weights, negatives in (({"view": 1.0}, {}), ({"view": 1.0, "buy": 5.0}, {"shown_types": ["buy"]})):
        events = {"path": "x", "columns": columns, "event_weights": weights}
        with pytest.raises(ConfigError, match="no event is a 'buy'"):
            parse_config(MINIMAL | {"ingest": {"events": events}, "pairs": asked | {"negatives": negatives}})
    events = {"path": "x", "columns": columns, "event_weights": {"view": 1.0, "buy": 5.0}}
    parse_config(MINIMAL | {"ingest": {"events": events}, "pairs": asked, "train": {"outcome_share": 0.2}})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"encoder": {"context": ["device"]}}, "'device', which ingest.events.context does not keep"),
        ({"encoder": {"use_item_id": False}, "augment": {"adversarial_epsilon": 0.1}}, "needs encoder.use_item_id = true"),
        ({"train": {"queue_size": 8, "negatives": "in_batch"}, "augment": {"adversarial_epsilon": 0.1}}, "leave one out"),
        ({"augment": {"view_share": 0.1, "view_operations": []}}, "needs at least one of view_operations"),
        ({"train": {"loss_weights": "learned", "pair_loss": "direct_au"}}, "needs losses above 0"),
        ({"train": {"clip_norm": 0}}, "greater than 0"),
        ({"train": {"max_steps": 0}}, "greater than or equal to 1"),
        ({"train": {"temperature": 0.001}}, "greater than or equal to 0.01"),
        ({"encoder": {"trained_layers": 0}}, "greater than or equal to 1"),
    ],
)
def test_towers_and_augmentation_that_do_not_go_with_the_rest_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_config(MINIMAL | changes)


def test_a_log_that_has_only_an_order_knows_no_gaps_and_hours() -> None:
    events = {"path": "x", "columns": {"user_id": "u", "item_id": "i", "event_pos": "p"}}
    with pytest.raises(ConfigError, match=r"gap, hour needs times: map ingest.events.columns.ts"):
        parse_config(MINIMAL | {"ingest": {"events": events}, "encoder": {"time_gaps": True, "context": ["hour"]}})
