"""EASE as a teacher: the plain formula in value and gradient, its file, and what happens without it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import Tensor

from recsys_spark.config.learning import EncoderSettings, TrainSettings
from recsys_spark.errors import TrainingError
from recsys_spark.training.distributed import process_group
from recsys_spark.training.job import check_losses
from recsys_spark.training.step import train_step as step_module
from recsys_spark.training.step.train_step import TrainStep
from recsys_spark.training.teacher import EaseOpinion, Seen, load_weights, save_weights, weights_between
from recsys_spark.training.trainer import Trainer
from tests.training_fixture import NUM_ITEMS, write_job
from tests.unit.test_training_step import BATCH, TEMPERATURE, WEIGHTS, make_step, plain_places

SHARE, SOFTNESS = 0.4, 0.8
TAUGHT = {"loss": "distillation", "teacher": "ease", "teacher_share": SHARE, "teacher_temperature": SOFTNESS}


def weights(size: int = 8) -> np.ndarray:
    """Half of them 0, some below; nothing is known of item 5."""
    rng = np.random.default_rng(1)
    found = rng.normal(size=(size, size)) * (rng.random((size, size)) < 0.5)
    np.fill_diagonal(found, 0.0)
    found[5] = 0.0
    return found.astype(np.float32)


def taught_step(**train: object) -> TrainStep:
    step = make_step(**(TAUGHT | train))
    step._catalogue.ease = sparse.csr_matrix(weights())
    return step


def plain_teacher(seen: list[int], candidates: list[int]) -> Tensor:
    scores = torch.tensor([sum(float(weights()[i, c]) for i in set(seen)) for c in candidates], dtype=torch.float64)
    spread = scores.std(correction=0)
    return torch.zeros_like(scores) if spread == 0 else (scores - scores.mean()) / spread


def plain_loss(step: TrainStep, candidates: list[int], mask_own: bool) -> Tensor:
    vectors = step.encode(torch.arange(8))
    total, weight = torch.zeros((), dtype=torch.float64), 0.0
    for sequence, place, target, state, row_weight in plain_places(step, vectors):
        teacher = plain_teacher([i for i in sequence[: place + 1] if i >= 0], candidates) / SOFTNESS
        kept = [n for n, c in enumerate(candidates) if c == target or not (mask_own and c in sequence)]
        log_student = (vectors[candidates] @ state / TEMPERATURE)[kept].log_softmax(0)
        soft = -(teacher[kept].softmax(0) * log_student).sum()
        hard = -log_student[kept.index(candidates.index(target))]
        total = total + row_weight * ((1 - SHARE) * hard + SHARE * soft)
        weight += row_weight
    return total / weight


@pytest.mark.parametrize(
    ("negatives", "candidates", "mask_own"), [("catalogue", [0, 1, 2, 3, 4, 5], False), ("in_batch", [0, 1, 2, 3, 5], True)]
)
@pytest.mark.parametrize("most_scores", [1 << 24, 12])  # 12: two states at a time
def test_value_and_gradient_are_those_of_the_plain_formula(
    monkeypatch: pytest.MonkeyPatch, negatives: str, candidates: list[int], mask_own: bool, most_scores: int
) -> None:
    monkeypatch.setattr(step_module, "_MAX_SCORES", most_scores)
    step = taught_step(negatives=negatives)
    parameters = [p for p in step.parameters() if p.requires_grad]
    expected, found = plain_loss(step, candidates, mask_own), step(BATCH).user_item
    assert found.item() == pytest.approx(expected.item(), abs=1e-6)
    gradients = [torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True) for loss in (expected, found)]
    assert max(float(g.abs().max()) for g in gradients[0]) > 1e-3
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(other, one, atol=1e-6, rtol=0)


def test_ease_teaches_users_only_and_only_where_it_is_asked_to() -> None:
    by_text, by_ease, plain = make_step(**(TAUGHT | {"teacher": "text"})), taught_step(), make_step()
    assert by_ease(BATCH).user_item.item() != pytest.approx(by_text(BATCH).user_item.item(), abs=1e-3)
    for other in (by_ease, by_text):
        torch.testing.assert_close(other(BATCH).item_item, plain(BATCH).item_item)
    pairs_too = {"pair_loss": "distillation"}
    alone = make_step(**(pairs_too | TAUGHT))(replace_users()).item_item
    torch.testing.assert_close(taught_step(**pairs_too)(BATCH).item_item, alone)
    assert TrainSettings().teacher == "text"
    assert not TrainSettings(teacher="ease").ease_teaches
    assert TrainSettings(**TAUGHT).ease_teaches


def replace_users() -> object:
    """The batch without sequences: nothing needs EASE."""
    return replace(BATCH, sequences=torch.zeros((0, 2), dtype=torch.int64), sequence_weights=WEIGHTS[:0])


def test_an_item_counts_once_and_places_are_those_of_the_states() -> None:
    histories = torch.tensor([[-1, 3, 1, 3], [-1, -1, -1, 5], [2, -1, 4, 0]])
    counts = (histories != -1) & torch.tensor([True, True, True, False])[None, :] | (histories == 5)
    seen, candidates = Seen(histories, counts), torch.tensor([0, 2, 3, 6])
    expected = [plain_teacher(items, candidates.tolist()) for items in ([3], [3, 1], [5], [2], [2, 4])]
    opinion = EaseOpinion(sparse.csr_matrix(weights()), seen, candidates)
    found = torch.cat([opinion.scores(slice(0, 2)), opinion.scores(slice(2, 5))])
    torch.testing.assert_close(found.double(), torch.stack(expected), atol=1e-6, rtol=0)
    assert not found[2].any()  # of item 5 nothing is known
    torch.testing.assert_close(found[0].std(correction=0), torch.tensor(1.0))


def test_the_table_becomes_a_file_between_positions(tmp_path: Path) -> None:
    """Items 0, 10, 20, 30; the table knows items 5 and 99 too, and nothing of 20."""
    table = {30: [(10, 0.5), (99, 9.0)], 0: [], 5: [(10, 9.0)], 10: [(0, -0.25), (30, 1.5)]}
    lengths = np.array([len(row) for row in table.values()])
    others, values = np.array([cell for row in table.values() for cell in row]).T
    found = weights_between(np.array([0, 10, 20, 30]), np.array(list(table)), lengths, others.astype(np.int32), values)
    save_weights(tmp_path, found)
    again = load_weights(tmp_path, 4)
    assert again is not None
    assert again.toarray().tolist() == [[0, 0, 0, 0], [-0.25, 0, 0, 1.5], [0, 0, 0, 0], [0, 0.5, 0, 0]]
    assert load_weights(tmp_path / "elsewhere", 4) is None


def test_ranks_read_the_file_and_say_where_it_is_missing(tmp_path: Path) -> None:
    job = write_job(tmp_path, max_steps=2, validation=0, **TAUGHT)
    with process_group(60) as ranks:
        trainer = Trainer(job, ranks)
        batch, rows = next(trainer.batches.from_step(0))
        with pytest.raises(TrainingError, match=r"no EASE weights; expected item_weights\.npz"):
            trainer.step(batch, rows)
        save_weights(job.inputs, sparse.csr_matrix(weights(NUM_ITEMS)))
        losses = [Trainer(job, ranks).step(batch, rows).user_item]
        save_weights(job.inputs, sparse.csr_matrix(weights(NUM_ITEMS).T))
        losses.append(Trainer(job, ranks).step(batch, rows).user_item)
    assert losses[0] != pytest.approx(losses[1], abs=1e-4)


def test_texts_may_be_learned_while_ease_teaches() -> None:
    check_losses(EncoderSettings(text_training="full"), TrainSettings(**TAUGHT))
