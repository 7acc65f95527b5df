"""What was searched for: found by its hash, learned through its text, kept with the model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from recsys_spark.config.learning import EncoderSettings
from recsys_spark.config.moments import moment_of
from recsys_spark.encoder.model import Encoder
from recsys_spark.encoder.package import model_identity, save_model
from recsys_spark.encoder.packaged_model import load_model
from recsys_spark.encoder.query_table import QueryTable, save_queries
from recsys_spark.encoder.text_encoder import TextEncoder
from recsys_spark.training.distributed import process_group
from recsys_spark.training.loop import train
from recsys_spark.training.metrics import read_metrics, recall_curve
from tests.training_fixture import NUM_ITEMS, write_files, write_job

HASHES, ASKED = [40, 7, 2**32 - 1], [[0, 7], [9, 2**32 - 1], [40, 41]]


def table(width: int = 4) -> QueryTable:
    torch.manual_seed(0)
    return QueryTable(torch.tensor(HASHES), torch.randn(3, 5), width)


def test_known_queries_get_the_projection_of_their_text_and_others_nothing() -> None:
    torch.manual_seed(1)
    vectors = torch.randn(3, 5)
    made = QueryTable(torch.tensor(HASHES), vectors, 4)
    found = made(torch.tensor(ASKED))
    told = made.project(vectors)
    expected = torch.stack([torch.stack(row) for row in ((0 * told[0], told[1]), (0 * told[0], told[2]), (told[0], 0 * told[0]))])
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    gradient = made.project.weight.grad
    assert gradient is not None
    torch.testing.assert_close(gradient, vectors.sum(0).expand(4, 5))


def test_only_the_projection_is_state() -> None:
    assert set(table().state_dict()) == {"project.weight"}
    assert list(table().buffers()) == []


def test_a_model_folder_keeps_its_queries_and_is_another_model_with_others(tmp_path: Path) -> None:
    job = write_job(tmp_path, encoder={"query_key": "search", "time_gaps": True})
    torch.manual_seed(0)
    encoder = Encoder(job.encoder, 32, 1).with_queries((torch.tensor(HASHES), torch.randn(3, 32))).eval()
    text = TextEncoder.load("tiny", 8, "float32")
    folder = save_model(tmp_path / "model", encoder, text, ["a"], 0.07, {})
    model, part = load_model(folder), job.encoder.moments[-1]
    history, is_item = torch.randn(2, 3, job.encoder.dimension), torch.ones(2, 3, dtype=torch.bool)
    moments = torch.tensor([[0, 40, 7], [9, 0, 2**32 - 1]]) * part.unit
    with torch.no_grad():
        told, untold = encoder.user_vectors(history, is_item, moments), encoder.user_vectors(history, is_item)
    assert (told - untold).abs().max() > 1e-3
    np.testing.assert_allclose(model.encode_users(history.numpy(), is_item.numpy(), moments.numpy()), told, atol=1e-6)
    before = model_identity(folder)
    save_queries(folder, np.array(HASHES), np.ones((3, 32)))
    assert model_identity(folder) != before


def test_who_is_told_the_query_knows_the_next_item(tmp_path: Path) -> None:
    """Any item may come next; only the query, which is the text of it, tells. 1 of 30 is what guessing finds."""
    encoder = {"query_key": "search", "max_history": 4, "dropout": 0.0}
    draw = np.random.default_rng(0)
    options = {"epochs": 8, "learning_rate": 0.02, "validation_k": 1}
    part = EncoderSettings(**encoder).moments[-1]
    asked = [moment_of([part], {"context": {"search": f"item number {item}"}}) for item in range(NUM_ITEMS)]

    def rows(num: int) -> dict[str, np.ndarray]:
        items = draw.integers(0, NUM_ITEMS, (num, 5))
        moments = np.concatenate([np.array(asked)[items[:, 1:]], np.zeros((num, 1), np.int64)], axis=1)
        weight, num_items = np.ones(num, np.float32), np.full(num, 5, np.int32)
        named = {"items": (items * 10).astype(np.int32), "num_items": num_items, "weight": weight, "moments": moments}
        return {"user_idx": np.arange(num, dtype=np.int32), **named}

    job = write_job(tmp_path, [200, 200], encoder=encoder, sequences=rows(400), **options)
    job = replace(job, validation_files=write_files(tmp_path / "validation", rows(60), [60]))
    hashes = np.array(asked) // part.unit
    save_queries(job.inputs, hashes, np.load(job.inputs / "text_vectors.npy"))
    with process_group(60) as ranks:
        train(job, ranks)
    assert max(recall for _, recall in recall_curve(read_metrics(job.metrics))) > 0.8


def test_queries_are_learned_from_in_bfloat16() -> None:
    made = table()
    with torch.autocast("cpu", torch.bfloat16):
        found = made(torch.tensor(ASKED))
    torch.testing.assert_close(found, made(torch.tensor(ASKED)), atol=0.05, rtol=0.05)
