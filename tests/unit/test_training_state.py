"""When a training has done enough."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from recsys_spark.config.learning import TrainSettings
from recsys_spark.training.distributed import process_group
from recsys_spark.training.loop import train
from recsys_spark.training.state import PATIENCE, STEPS, TIME, Progress
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


def test_a_limit_is_a_positive_number() -> None:
    with pytest.raises(ValidationError, match="max_minutes"):
        TrainSettings(max_minutes=0)
