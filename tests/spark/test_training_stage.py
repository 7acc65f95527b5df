"""Stage train through Spark: two ranks under TorchDistributor, done once, found again after a kill."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from safetensors.torch import load_file

from recsys_spark.config import Config, parse_config
from recsys_spark.context import Context
from recsys_spark.encoder.packaged_model import load_model
from recsys_spark.errors import MissingTableError, PendingError
from recsys_spark.tables.contracts import contract
from recsys_spark.tables.runs import StageReport
from recsys_spark.tables.store import Commit, Store
from recsys_spark.tables.visible import InstantCutoff
from recsys_spark.training import stage
from recsys_spark.training.job import TrainJob
from recsys_spark.training.teacher import load_weights
from tests.debug_data import debug_config
from tests.training_fixture import LENGTH, NUM_ITEMS, neighbours, run_ranks, walks

AS_OF = datetime(2024, 2, 1, tzinfo=UTC)
EVENT = datetime(2024, 1, 1, tzinfo=UTC)
COLD = (NUM_ITEMS, NUM_ITEMS + 1)  # items with text and without events


def text_vectors(context: Context, items: DataFrame) -> DataFrame:
    """A vector for every item but the last."""
    vector = F.array(*[F.sin(F.col("item_idx") * (i + 1)).cast("float") for i in range(32)])
    return items.where(F.col("item_idx") != COLD[1]).select("item_idx", vector.alias("vector"))


def fill(store: Store, commit: Commit) -> None:
    """Items 0..29 with one event each, two cold items, walks and pairs."""
    spark = store.spark
    items = [
        (f"i{i}", i, None, f"item {i}", True, f"c{i % 3}", {"brand": f"b{i}"}, True, f"sha{i}", EVENT.date(), None)
        for i in range(NUM_ITEMS + len(COLD))
    ]
    events = [(f"e{i}", "u0", 0, f"i{i}", i, "view", 1.0, 1.0, 1, EVENT, i, "s0", None, EVENT.date()) for i in range(NUM_ITEMS)]
    frames = {"items": items, "events": events, "users": [("u0", 0, None, None)]}
    for table, rows in frames.items():
        store.replace(table, "live", spark.createDataFrame(rows, contract(table).schema), commit)
    for table, users, files in (("training_sequences", 40, 4), ("validation_sequences", 15, 2)):
        rows = walks(users, seed=users)
        found = [
            (int(u), [int(i) // 10 if i >= 0 else -1 for i in row], int(n), float(w), None)
            for u, row, n, w in zip(rows["user_idx"], rows["items"], rows["num_items"], rows["weight"], strict=True)
        ]
        store.replace(table, "live", spark.createDataFrame(found, contract(table).schema), commit, num_files=files)
    pairs = neighbours(NUM_ITEMS)
    found_pairs = [
        (int(a) // 10, int(b) // 10, float(w))
        for a, b, w in zip(pairs["anchor_idx"], pairs["item_idx"], pairs["weight"], strict=True)
    ]
    frame = spark.createDataFrame(found_pairs, contract("training_pairs").schema)
    store.replace("training_pairs", "live", frame, commit, num_files=4)
    for table, users in (("training_outcomes", 40), ("validation_outcomes", 20)):
        rows = walks(users, seed=users)
        asked = [
            (int(u), [int(i) // 10 if i >= 0 else -1 for i in row[:-1]], int(row[-1]) // 10, int(u) % 3 // 2, 1.0, None)
            for u, row in zip(rows["user_idx"], rows["items"], strict=True)
        ]
        store.replace(table, "live", spark.createDataFrame(asked, contract(table).schema), commit, num_files=4)


def config_for(tmp_path: Path) -> Config:
    train = {"ranks": 2, "epochs": 2, "batch_size": 8, "pair_batch_size": 8, "learning_rate": 0.01, "max_restarts": 0}
    encoder = {"text_model": "tiny", "dimension": 8, "user_layers": 1, "max_history": LENGTH - 1, "max_tokens": 8}
    encoder |= {"adapt": "simcse", "adapt_steps": 2, "item_gate": "learned", "attributes": ["category", "brand"]}
    train |= {"outcome_share": 0.5, "outcome_batch_size": 8}
    overrides = {"train": train, "encoder": encoder, "pairs": {"max_history": LENGTH - 1, "outcomes": {"about": "like"}}}
    document: dict[str, Any] = debug_config(tmp_path, tmp_path / "warehouse", **overrides)
    document["ingest"]["events"]["like_at_least"] = 4.0
    document["ingest"]["items"]["attributes"] = ["brand"]
    return parse_config(document)


def test_ranks_that_somebody_else_starts_learn_the_same(store: Store, commit: Commit, tmp_path: Path) -> None:
    """The stage stops with all that they need, leaves it alone while they run, and goes on with what they learned."""
    fill(store, commit)

    def run(folder: Path, start_ranks: bool) -> StageReport:
        plain = config_for(folder)
        train = plain.train.model_copy(update={"start_ranks": start_ranks, "ranks": 1, "work_dir": str(folder / "models")})
        encoder = plain.encoder.model_copy(update={"adapt": "none"})
        config = plain.model_copy(update={"train": train, "encoder": encoder})
        return stage.run(
            config, Context(store.spark, store, config, "live", InstantCutoff(AS_OF, AS_OF, AS_OF), "run"), text_vectors
        )

    with pytest.raises(PendingError, match="torchrun --nproc-per-node 1 -m") as stopped:
        run(tmp_path / "outside", False)
    assert stopped.value.exit_code == 10
    (order,) = (tmp_path / "outside").rglob("job.json")
    written = {path: path.stat().st_mtime_ns for path in order.parent.rglob("*") if path.is_file()}
    with pytest.raises(PendingError):
        run(tmp_path / "outside", False)
    assert {path: path.stat().st_mtime_ns for path in order.parent.rglob("*") if path.is_file()} == written
    code, output = run_ranks(TrainJob.load(order), 1)
    assert code == 0, output
    outside = run(tmp_path / "outside", False)
    inside = run(tmp_path / "inside", True)
    assert outside.fingerprint == inside.fingerprint
    assert outside.facts["loss_curve"] == inside.facts["loss_curve"]
    weights = [load_file(Path(report.facts["model_dir"]) / "weights.safetensors") for report in (outside, inside)]
    assert all(torch.equal(weights[0][name], tensor) for name, tensor in weights[1].items())


def test_a_teacher_of_ease_needs_its_table_and_its_content_is_part_of_the_job(
    store: Store, commit: Commit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, commit)
    jobs: list[TrainJob] = []

    def launch(path: Path, *_: object) -> None:
        """Ranks that learn nothing."""
        jobs.append(TrainJob.load(path))
        model = Path(jobs[-1].model_dir)
        model.mkdir()
        (model / "encoder.json").write_text("{}")
        jobs[-1].result.write_text("{}")

    monkeypatch.setattr(stage, "launch", launch)

    def run(**train: object) -> str:
        plain = config_for(tmp_path)
        encoder = plain.encoder.model_copy(update={"adapt": "none"})
        config = plain.model_copy(update={"train": plain.train.model_copy(update=train), "encoder": encoder})
        context = Context(store.spark, store, config, "live", InstantCutoff(AS_OF, AS_OF, AS_OF), "run")
        return stage.run(config, context, text_vectors).fingerprint

    def write(rows: list[tuple[int, list[int], list[float]]]) -> None:
        store.replace("item_weights", "live", store.spark.createDataFrame(rows, contract("item_weights").schema), commit)

    taught = {"loss": "distillation", "teacher": "ease"}
    with pytest.raises(MissingTableError, match=r"table 'item_weights' of live has no rows.* or set teacher = 'text'"):
        run(**taught)
    by_text = run(loss="distillation")
    assert not jobs[-1].inputs.joinpath("item_weights.npz").exists()
    write([(0, [1, 2], [0.5, -0.25]), (2, [0], [1.0]), (3, [], [])])
    assert run(loss="distillation") == by_text  # a table that is not read changes nothing
    first = run(**taught)
    weights = load_weights(jobs[-1].inputs, NUM_ITEMS + len(COLD))
    assert weights is not None
    assert dict(weights.todok()) == {(0, 1): 0.5, (0, 2): -0.25, (2, 0): 1.0}
    assert jobs[-1].train.teacher == "ease"
    write([(0, [1, 2], [0.5, -0.125]), (2, [0], [1.0])])
    assert len({by_text, first, run(**taught)}) == 3


def test_train_stage(store: Store, commit: Commit, tmp_path: Path) -> None:
    fill(store, commit)
    config = config_for(tmp_path)
    context = Context(store.spark, store, config, "live", InstantCutoff(AS_OF, AS_OF, AS_OF), "run")

    report = stage.run(config, context, text_vectors)
    model_dir = Path(report.facts["model_dir"])
    assert report.status == "done"
    assert report.facts["ranks"] == 2
    assert report.facts["steps"] == 6  # 40 sequences: 20 a rank, 3 batches of 8, 2 epochs
    assert [step for step, _ in report.facts["loss_curve"]] == [1, 2, 3, 4, 5, 6]
    assert 0 <= report.facts["validation_recall"] <= 1
    assert model_dir.parent == config.work_dir / "live" / report.fingerprint
    assert report.fingerprint in model_dir.name
    model = load_model(model_dir)
    assert model.known_items == {f"i{i}": i for i in range(NUM_ITEMS)}
    assert Path(model.settings.text_model).parent == config.work_dir / "adapted"
    assert list(model.attribute_values) == ["category=c0", "category=c1", "category=c2"]  # each brand has one item
    assert model.encoder.item_tower.counts.tolist() == [1.0] * NUM_ITEMS
    assert model.encoder.outcome is not None
    assert float(model.encoder.outcome.slope) == pytest.approx(report.facts["outcome"]["slope"], rel=1e-5)
    assert (report.facts["outcome"]["events"], report.facts["outcome"]["wanted"]) == (20, 6)
    inputs = np.load(model_dir.parent / "inputs" / "items.npz")
    assert inputs["item_idx"].tolist() == list(range(NUM_ITEMS + 2))
    assert inputs["id_row"].tolist() == [*range(NUM_ITEMS), -1, -1]
    vectors = np.load(model_dir.parent / "inputs" / "text_vectors.npy")
    assert vectors.shape == (NUM_ITEMS + 2, 32)
    np.testing.assert_allclose(vectors[7, 4], np.sin(7 * 5), atol=1e-6)
    assert not vectors[COLD[1]].any()

    again = stage.run(config, context, text_vectors)
    assert (again.status, again.facts["steps"]) == ("skipped", 6)

    weights = (model_dir / "weights.safetensors").read_bytes()
    shutil.rmtree(model_dir)  # as if it had been killed before the model was written
    result = model_dir.parent / "result.json"
    before = json.loads(result.read_text())
    assert stage.run(config, context, text_vectors).status == "done"
    assert (model_dir / "weights.safetensors").read_bytes() == weights
    assert json.loads(result.read_text()) == before, "nothing was trained again"
