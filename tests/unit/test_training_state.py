"""When a training has done enough."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from recsys_spark.config.learning import TrainSettings
from recsys_spark.training.distributed import process_group
from recsys_spark.training.loop import train
from recsys_spark.training.state import PATIENCE, STEPS, TIME, Progress, planned_steps
from tests.training_fixture import write_job


def test_the_best_epoch_is_the_first_of_equal_ones() -> None:
    progress = Progress()
    assert [progress.epoch_done(n, recall) for n, recall in enumerate([0.1, 0.3, 0.3, None, 0.2])] == [True, True] + [False] * 3
    assert (progress.best_epoch, progress.best_recall, progress.epochs_without_better, progress.epochs) == (1, 0.3, 2, 5)


@pytest.mark.parametrize(
    ("step", "without_better", "epochs", "seconds", "expected"),
    [
        (50, 0, 5, 1.0, ""),
        (100, 9, 5, 999.0, STEPS),
        (50, 3, 5, 1.0, PATIENCE),
        (50, 0, 5, 100.0, ""),  # a sixth epoch would end at the limit of 120 seconds
        (50, 0, 5, 100.1, TIME),
        (50, 0, 1, 61.0, TIME),
    ],
)
def test_no_epoch_starts_that_would_end_too_late(
    step: int, without_better: int, epochs: int, seconds: float, expected: str
) -> None:
    progress = Progress(step=step, epochs=epochs, epochs_without_better=without_better)
    progress.stop(100, 3, seconds, 2.0)
    assert (progress.stopped, progress.finished) == (expected, bool(expected))
    unlimited = Progress(step=50, epochs=epochs)
    unlimited.stop(100, 3, seconds, None)
    assert not unlimited.finished


def test_a_training_out_of_time_keeps_the_best_epoch_it_has(tmp_path: Path) -> None:
    job = write_job(tmp_path, epochs=5, max_minutes=1e-6)
    with process_group(60) as ranks:
        train(job, ranks)
    result = json.loads(job.result.read_text())
    assert (result["epochs"], result["best_epoch"], result["stopped"]) == (1, 1, TIME)
    assert result["steps"] < result["steps_per_epoch"]  # cut short


@pytest.mark.parametrize(
    ("step", "seconds", "total", "expected"),
    [
        (19, 1_000.0, 5_000, 5_000),  # too early to tell
        (20, 20.0, 5_000, 120),  # a second each, of 120; the first epoch has 1,000
        (20, 2.0, 5_000, 5_000),  # 1,200 in time: it will be done
        (20, 20.0, 100, 100),
        (130, 130.0, 5_000, 130),
    ],
)
def test_learning_rates_come_down_within_the_time_there_is(step: int, seconds: float, total: int, expected: int) -> None:
    assert planned_steps(step, seconds, 1_000, total, 2.0) == expected


def test_a_limit_is_a_positive_number() -> None:
    with pytest.raises(ValidationError, match="max_minutes"):
        TrainSettings(max_minutes=0)
