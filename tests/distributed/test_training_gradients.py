"""Two ranks learn exactly what one rank with the doubled batch would."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from recsys_spark.config.augment import AugmentSettings
from recsys_spark.config.learning import EncoderSettings, TrainSettings
from recsys_spark.encoder.model import Encoder
from recsys_spark.encoder.negatives import KnownPairs
from recsys_spark.encoder.text_encoder import TextEncoder
from recsys_spark.training.catalogue import Catalogue
from recsys_spark.training.distributed import Ranks
from recsys_spark.training.feed.augment import History, Views, two_views
from recsys_spark.training.feed.batch import Batch, Outcomes
from recsys_spark.training.step.adversarial import moved
from recsys_spark.training.step.train_step import TrainStep
from tests.training_fixture import ALONE, as_rank, on_two_ranks

NUM_ITEMS, ROWS, PAIRS = 20, 10, 8  # of the global batch
CASES = {
    "catalogue": {"negatives": "catalogue"},
    "in_batch": {"negatives": "in_batch"},
    "in_batch, users only": {"negatives": "in_batch", "item_item_share": 0.0},
    "items only": {"negatives": "in_batch", "user_item_share": 0.0, "item_item_share": 1.0},
    "trained text": {"negatives": "in_batch"},
    "drawn by popularity": {"negatives": "popularity", "num_negatives": 12, "loss": "sampled_softmax"},
    "NCE in batch": {"negatives": "in_batch", "loss": "nce", "pair_loss": "triplet_semi_hard", "similarity": "euclidean"},
    "DirectAU": {"negatives": "in_batch", "loss": "direct_au", "pair_loss": "direct_au"},
    "several positives": {"loss": "supcon", "pair_loss": "supcon", "pair_candidates": "all", "matryoshka_dims": [2, 6]},
    "queue": {"negatives": "in_batch", "queue_size": 9, "pair_ways": "forward"},
    "masks": {"mask_known_pairs": "both", "mask_guide": "both", "guide_margin": 0.1, "pair_loss": "distillation"},
    "taught by EASE": {"loss": "distillation", "teacher": "ease", "teacher_temperature": 0.7},
    "views": {"negatives": "in_batch", "item_item_share": 0.0},
    "adversarial": {"negatives": "catalogue"},
    "in parts": {"negatives": "in_batch", "cache_chunk_size": 3, "explicit_share": 0.5},
    "outcomes": {"negatives": "in_batch", "outcome_share": 0.6, "loss_weights": "learned"},
}


def make_step(case: str, ranks: Ranks) -> TrainStep:
    """The step module of a case in float64 and without dropout; the same weights in every process."""
    settings = EncoderSettings(text_model="tiny", dimension=6, user_layers=1, max_history=5, dropout=0.0, item_id_dropout=0.0)
    rng = np.random.default_rng(1)
    text = TextEncoder.load("tiny", 8, "float32") if case == "trained text" else None
    tokens = text.tokenise([f"item {i * 37}" for i in range(NUM_ITEMS)]) if text else None
    if text is not None:
        text.train_only("full")
    id_rows = np.where(np.arange(NUM_ITEMS) % 5 == 4, -1, np.arange(NUM_ITEMS))
    ids = [f"i{i}" for i in range(NUM_ITEMS)]
    catalogue = Catalogue(np.arange(NUM_ITEMS), id_rows, ids, rng.normal(size=(NUM_ITEMS, 32)), tokens)
    catalogue.ease = sparse.random(NUM_ITEMS, NUM_ITEMS, 0.3, format="csr", random_state=3, dtype=np.float32)
    torch.manual_seed(5)
    train = TrainSettings(**({"item_item_share": 0.3} | CASES[case]))
    headed = train.outcome_share > 0
    encoder = Encoder(settings, 32, NUM_ITEMS, temperature=0.2, learn_temperature=True, outcome_head=headed).double()
    if encoder.outcome is not None:
        torch.nn.init.normal_(encoder.outcome.interaction)
    known = KnownPairs(torch.tensor([0, 1, 2, 3]), torch.tensor([5, 6, 7, 8]))
    augment = AugmentSettings(view_share=0.5 if case == "views" else 0.0)
    step = TrainStep(encoder, catalogue, train, ranks, text, known_pairs=known, augment=augment)
    if step.queue is not None:
        step.queue.add(torch.arange(3, 15), torch.tensor(rng.normal(size=(12, 6))), seed=4)
    step.encoder.train()
    return step


def global_batch(case: str) -> Batch:
    """Sequences of different length and weights that differ a lot between the first half and the second."""
    rng = np.random.default_rng(2)
    known = np.array([i for i in range(NUM_ITEMS) if i % 5 != 4])
    sequences = rng.choice(known, size=(ROWS, 6))
    for row in range(ROWS):
        sequences[row, : row % 5] = -1
    weights = torch.linspace(0.1, 3.0, ROWS, dtype=torch.float64)
    pairs = torch.tensor(rng.integers(0, NUM_ITEMS, size=(PAIRS, 2)))
    pairs[-1] = pairs[0]  # a pair that stands on both ranks
    pairs[1, 0] = pairs[0, 0]  # an anchor with two positives
    if CASES[case].get("user_item_share") == 0.0:
        sequences, weights = np.zeros((0, 2)), weights[:0]
    if CASES[case].get("item_item_share") == 0.0:
        pairs = pairs[:0]
    batch = Batch(torch.tensor(sequences).long(), weights, pairs, torch.linspace(1.0, 2.0, len(pairs), dtype=torch.float64))
    batch = replace(batch, shared_seed=77)
    if case == "views":
        rows = batch.sequences[:, 1:].clone()
        rows[ROWS - 1] = rows[0]  # a row that stands on both ranks
        draw = torch.Generator().manual_seed(3)
        settings = AugmentSettings(view_share=1.0)
        seen, near = rows.masked_fill(rows.roll(1, 1) == -1, -1), torch.zeros((0, 1), dtype=torch.int64)
        batch = replace(batch, history=History(seen), views=two_views(History(rows), settings, draw, near))
    if case == "outcomes":
        asked, happened = torch.tensor(rng.choice(known, size=ROWS)), torch.arange(ROWS) % 3 == 0
        past = batch.sequences[:, 1:].roll(3, 0)  # the longest on other ranks than those of the sequences
        batch = replace(batch, outcomes=Outcomes(History(past), asked, happened.double(), weights.flip(0)))
    if not CASES[case].get("explicit_share"):
        return batch
    unwanted = torch.tensor(rng.choice(known, size=(ROWS, 3)))
    unwanted[::2, 1:] = -1
    return replace(batch, explicit_sequences=batch.sequences, explicit_items=unwanted, explicit_weights=weights.flip(0))


def part(batch: Batch, rank: int, world: int) -> Batch:
    """The rank's equal share of a global batch."""

    def rows(values: Tensor) -> Tensor:
        size = len(values) // world
        return values[rank * size : (rank + 1) * size]

    parts: dict[str, Any] = {
        f.name: rows(getattr(batch, f.name)) for f in fields(batch) if isinstance(getattr(batch, f.name), Tensor)
    }
    if batch.views is not None and batch.history is not None:
        views = Views(*(History(rows(v.items)) for v in (batch.views.first, batch.views.second)), rows(batch.views.rows))
        parts |= {"history": History(rows(batch.history.items)), "views": views}
    if batch.outcomes is not None:
        asked = batch.outcomes
        parts |= {
            "outcomes": Outcomes(History(rows(asked.history.items)), *map(rows, (asked.items, asked.happened, asked.weights)))
        }
    return replace(batch, **parts)


def gradients(step: torch.nn.Module, batch: Batch, adversarial: bool = False) -> tuple[float, dict[str, Tensor], list[int]]:
    """This rank's share of the loss, the gradients by name, and how many negatives were masked."""
    out = step(batch)
    out.loss.backward()
    if adversarial:
        inner: Any = step.module if isinstance(step, DistributedDataParallel) else step
        with moved(inner.encoder.item_tower.ids.weight, 0.3):
            step(batch).loss.backward()
    named = {n.removeprefix("module."): p.grad for n, p in step.named_parameters() if p.grad is not None}
    return float(out.loss.detach()), named, out.masked.tolist()


def rank_main(rank: int, port: int, folder: str) -> None:
    """One process: gradients of all cases, through DistributedDataParallel, into a file."""
    found: dict[str, Any] = {}
    with as_rank(rank, port) as ranks:
        for case in CASES:
            unused = case in ("items only", "trained text")
            group = ranks.gradient_group
            step = DistributedDataParallel(make_step(case, ranks), process_group=group, find_unused_parameters=unused)
            found[case] = gradients(step, part(global_batch(case), rank, ranks.world), case == "adversarial")
    torch.save(found, f"{folder}/{rank}.pt")


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder: Path = tmp_path_factory.mktemp("gradients")
    return on_two_ranks(rank_main, folder)


@pytest.mark.parametrize("case", list(CASES))
def test_two_ranks_have_the_gradients_of_one_with_the_doubled_batch(two_ranks: list[dict[str, Any]], case: str) -> None:
    loss, expected, masked = gradients(make_step(case, ALONE), global_batch(case), case == "adversarial")
    shares = [two_ranks[rank][case][0] for rank in range(2)]
    tolerance = 1e-6 if case != "trained text" else 1e-5  # the text model itself computes in float32
    assert sum(shares) / 2 == pytest.approx(loss, abs=tolerance)
    assert abs(shares[0] - shares[1]) > 1e-3  # the halves differ: an unweighted mean of means would not pass
    assert [sum(counts) for counts in zip(*(two_ranks[rank][case][2] for rank in range(2)), strict=True)] == masked
    rtol = 0.0 if case != "trained text" else 1e-5
    largest = max(float(g.abs().max()) for g in expected.values())
    assert largest > 1e-3
    for rank in range(2):
        found = two_ranks[rank][case][1]
        assert set(expected) <= set(found)
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, expected.get(name, torch.zeros_like(gradient)), atol=tolerance, rtol=rtol)


def test_gather_brings_gradients_back_from_all_ranks(two_ranks: list[dict[str, Any]]) -> None:
    """The id rows that only rank 1's batch uses get a gradient on rank 0 too, and the same one."""
    first, second = (two_ranks[rank]["in_batch"][1]["encoder.item_tower.ids.weight"] for rank in range(2))
    used = set(global_batch("in_batch").sequences[ROWS // 2 :].flatten().tolist()) - {-1}
    assert all(float(first[row].abs().sum()) > 0 for row in used)
    torch.testing.assert_close(first, second, atol=0, rtol=0)
