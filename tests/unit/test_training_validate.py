"""Validation recall, the metrics file and the curves drawn from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from recsys_spark.training.feed.augment import History
from recsys_spark.training.metrics import MetricLog, StepMetrics, loss_curve, masked_per_epoch, read_metrics, recall_curve
from recsys_spark.training.validate import hits_at_k, recall
from tests.training_fixture import ALONE


class LastItem:
    """An encoder whose state is the item it stands at."""

    def user_states(self, history: Tensor, is_item: Tensor, moments: Tensor | None) -> Tensor:
        return history * is_item[..., None]


VECTORS = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.8, 0.2], [0.0, 1.0], [0.8, 0.2]])
SEQUENCES = History(
    torch.tensor(
        [
            [-1, 0, 1],  # the nearest that is not in the history: rank 0
            [-1, 0, 2],  # behind item 1: rank 1
            [-1, 0, 4],  # ties with item 2, which has the lower position: rank 2
            [1, 0, 2],  # item 1 is in the history and does not count: rank 0
            [-1, 0, 0],  # in its own history: never found
            [-1, 0, 3],  # rank 3
        ]
    )
)


@pytest.mark.parametrize(
    ("k", "expected"),
    [(1, [1, 0, 0, 1, 0, 0]), (2, [1, 1, 0, 1, 0, 0]), (3, [1, 1, 1, 1, 0, 0]), (4, [1, 1, 1, 1, 0, 1])],
)
def test_hits_leave_out_the_history_and_break_ties_by_position(k: int, expected: list[int]) -> None:
    assert hits_at_k(LastItem(), VECTORS, SEQUENCES, k).int().tolist() == expected  # type: ignore[arg-type]


def test_recall_is_a_share_and_none_without_data() -> None:
    assert recall(LastItem(), VECTORS, SEQUENCES, 2, ALONE) == pytest.approx(0.5)  # type: ignore[arg-type]
    assert recall(LastItem(), VECTORS, None, 2, ALONE) is None  # type: ignore[arg-type]


def figures(step: int, recall: float | None = None) -> StepMetrics:
    return StepMetrics(step, (step - 1) // 3, float(step), 1.0, 2.0, 0.1, 10.0, 0.5, recall)


def test_a_resumed_log_has_every_step_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricLog(path, 0) as log:
        for step in (1, 2, 3, 4):
            log.write(figures(step))
    with path.open("a") as file:
        file.write('{"step": 5, "lo')  # killed while writing
    with MetricLog(path, 2) as log:
        log.write(figures(3, recall=0.25))
    assert [line["step"] for line in read_metrics(path)] == [1, 2, 3]
    assert json.loads(path.read_text().splitlines()[-1])["recall"] == 0.25
    assert recall_curve(read_metrics(path)) == [[1, 0.25]]


def test_loss_curve_has_at_most_the_points_asked_for() -> None:
    lines = [{"step": step, "loss": float(step)} for step in range(1, 1_001)]
    curve = loss_curve(lines, 200)
    assert len(curve) == 200
    assert curve[0] == [5, 3.0]
    assert curve[-1] == [1000, 998.0]
    assert loss_curve(lines[:3]) == [[1, 1.0], [2, 2.0], [3, 3.0]]
    assert loss_curve([]) == []


def test_masked_negatives_are_summed_by_epoch() -> None:
    lines = [{"epoch": e, "masked_own": n, "masked_known_pair": 2 * n, "masked_guide": 1} for e, n in ((0, 1), (0, 5), (1, 7))]
    assert masked_per_epoch([{"epoch": 0}, *lines]) == [
        {"own": 6, "known_pair": 12, "guide": 2},
        {"own": 7, "known_pair": 14, "guide": 1},
    ]
