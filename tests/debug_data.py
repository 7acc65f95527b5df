"""The debug fixture: a seeded log of 200 users and 150 items with topics, written as CSV files."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

TOPICS = ("garden", "kitchen", "cycling", "music", "camping")
WORDS = {
    "garden": ["rake", "seed", "hose", "spade", "pot", "soil"],
    "kitchen": ["pan", "knife", "whisk", "oven", "bowl", "grater"],
    "cycling": ["helmet", "pedal", "saddle", "chain", "tyre", "bell"],
    "music": ["guitar", "string", "drum", "tuner", "amp", "reed"],
    "camping": ["tent", "stove", "lantern", "mat", "rope", "flask"],
}
START_SECONDS = 1_700_000_000  # 2023-11-14
AS_OF = "2024-02-01T00:00:00Z"
# a test session is short and its data small: a class per query would never earn back its compilation
QUICK = {
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.codegen.wholeStage": "false",  # rows are too few to pay for compiling a class per query
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.databricks.delta.stats.collect": "false",  # per row and column, interpreted; and nothing here is worth skipping
    "spark.databricks.delta.snapshotPartitions": "1",
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "4",  # else a vacuum has 10,000 tasks
    "spark.sql.lightweightPlanChangeValidation": "false",  # a check of Spark by itself, after each of its rules
}


def write_debug_data(folder: Path, num_users: int = 200, num_items: int = 150, seed: int = 7) -> Path:
    """Write events.csv (user, item, rating, time in epoch seconds), items.csv (item, title, topic) and graph.csv.

    Users prefer one topic and popular items in it, and often go on from an item to the next one of its topic; each has
    8 to 30 events, one to six hours apart.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    topic_of = rng.integers(0, len(TOPICS), num_items)
    popularity = 1.0 / (1.0 + np.arange(num_items)) ** 0.6
    rng.shuffle(popularity)
    rows = []
    for user in range(num_users):
        favourite = rng.integers(0, len(TOPICS))
        chance = popularity * np.where(topic_of == favourite, 8.0, 1.0)
        items = _walk(int(rng.integers(8, 31)), topic_of, chance, rng)
        time = START_SECONDS + int(rng.integers(0, 40 * 86_400))
        for item in items:
            time += int(rng.integers(3_600, 6 * 3_600))
            rating = int(rng.integers(3, 6)) if topic_of[item] == favourite else int(rng.integers(1, 6))
            rows.append((f"u{user}", f"i{item}", rating, time))
    rng.shuffle(rows)
    titles = [(f"i{i}", _title(TOPICS[t], rng), TOPICS[t]) for i, t in enumerate(topic_of)]
    graph = [(f"i{i}", "topic", TOPICS[t]) for i, t in enumerate(topic_of)]
    _write(folder / "events.csv", ("user", "item", "rating", "time"), rows)
    _write(folder / "items.csv", ("item", "title", "topic"), titles)
    _write(folder / "graph.csv", ("head", "relation", "tail"), graph)
    return folder


def _walk(length: int, topic_of: np.ndarray, chance: np.ndarray, rng: np.random.Generator) -> list[int]:
    """Distinct items: mostly the next of the same topic, else any by its chance. Only who reads the order can tell."""
    items: list[int] = []
    left = chance.copy()
    while len(items) < length:
        same = np.flatnonzero((topic_of == topic_of[items[-1]]) & (left > 0)) if items and rng.random() < 0.7 else np.array([])
        after = same[same > items[-1]] if len(same) else same
        item = int(after[0]) if len(after) else int(rng.choice(len(left), p=left / left.sum()))
        left[item] = 0.0
        items.append(item)
    return items


def _title(topic: str, rng: np.random.Generator) -> str:
    return " ".join(str(word) for word in rng.choice(WORDS[topic], size=2, replace=False)) + f" {int(rng.integers(1, 100))}"


def _write(path: Path, header: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(header)
        writer.writerows(rows)


def debug_config(data: Path, warehouse: Path, **overrides: object) -> dict[str, object]:
    """A configuration for the fixture: a tiny text model, few epochs, leave-one-out evaluation."""
    return {
        "name": "debug",
        "as_of": AS_OF,
        "warehouse": str(warehouse),
        "ingest": {
            "events": {
                "path": str(data / "events.csv"),
                "columns": {"user_id": "user", "item_id": "item", "value": "rating", "ts": "time"},
                "time_format": "epoch_seconds",
                "event_type": "rating",
                "dislike_at_most": 1.0,
            },
            "items": {
                "path": str(data / "items.csv"),
                "columns": {"item_id": "item", "title": "title", "category": "topic"},
                "template": "{title}. {topic}",
            },
            "knowledge_graph": {
                "path": str(data / "graph.csv"),
                "columns": {"head": "head", "relation": "relation", "tail": "tail"},
            },
        },
        "pairs": {"max_history": 20, "num_files": 4, "collaborative": {"blocks": 2}},
        "encoder": {
            "text_model": "tiny",
            "dtype": "float32",
            "dimension": 16,
            "user_layers": 1,
            "max_history": 20,
            "max_tokens": 16,
        },
        "train": {"epochs": 3, "batch_size": 32, "pair_batch_size": 64, "learning_rate": 0.01, "checkpoint_every_steps": 5},
        "recommend": {"k": 10, "neighbours_k": 10},
        "evaluate": {"split": "leave_one_out", "bootstrap_samples": 200},
        "spark": {"master": "local[2,4]", "driver_memory": "2g", "shuffle_partitions": 2, "options": dict(QUICK)},
    } | overrides


def thin_config(data: Path, warehouse: Path) -> dict[str, Any]:
    """The same night with each stage at its thinnest: one source of positives, no graph, no text partner."""
    config: dict[str, Any] = debug_config(data, warehouse)
    config["ingest"].pop("knowledge_graph")
    config["pairs"] |= {name: {"enabled": False} for name in ("collaborative", "knowledge_graph", "text")}
    config["recommend"]["partners"] = ["encoder", "cooccurrence", "popularity"]
    return config


def write_config(path: Path, settings: dict[str, Any]) -> Path:
    """These settings as a TOML file."""
    path.write_text("\n".join(f"{key} = {toml(value)}" for key, value in settings.items()))
    return path


def toml(value: Any) -> str:
    """``value`` as an inline TOML value (what these settings hold: dicts, lists, strings, numbers, booleans)."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    return json.dumps(value)
