"""Starting the ranks: our own errors reach the driver as they are, lost ranks are started anew, and the end is the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import SparkSession

from recsys_spark.encoder.packaged_model import load_model
from recsys_spark.errors import TrainingError
from recsys_spark.training.job import TrainJob
from recsys_spark.training.launcher import collect_errors, launch
from recsys_spark.training.metrics import read_metrics
from tests.training_fixture import walks, write_job


def start(job: TrainJob) -> None:
    """One local rank needs no Spark."""
    launch(job.path, job.train, None)  # type: ignore[arg-type]


def test_training_in_two_parts_equals_training_in_one(tmp_path: Path) -> None:
    """Stopped at a checkpoint in the middle of an epoch; losses are the same to 1e-6. The text encoder learns too."""
    options = {"epochs": 3, "negatives": "in_batch", "checkpoint_every_steps": 4, "encoder": {"text_training": "last_layers"}}
    whole, parts = (write_job(tmp_path / name, **options) for name in ("whole", "parts"))  # type: ignore[arg-type]
    start(whole)
    start(parts)
    kept = sorted(parts.checkpoints.glob("step-*.pt"))
    kept[-1].unlink()  # 18 steps: the ends of epochs and every fourth; back to step 16, in the third epoch
    parts.result.unlink()
    assert kept[0].name == "step-000000016.pt"
    start(parts)
    lines, expected = read_metrics(parts.metrics), read_metrics(whole.metrics)
    assert [line["step"] for line in lines] == list(range(1, 19))
    np.testing.assert_allclose([line["loss"] for line in lines], [line["loss"] for line in expected], atol=1e-6)
    assert json.loads(parts.result.read_text())["validation_recall"] == json.loads(whole.result.read_text())["validation_recall"]
    model = load_model(parts.model_dir)
    assert model.encode_items(["item number 1", "unknown"], ["i1", None]).shape == (2, 8)
    assert len(model.known_items) == 30


def test_a_bad_row_is_named_and_not_tried_again(tmp_path: Path) -> None:
    rows = walks(48)
    rows["weight"][5] = np.inf
    job = write_job(tmp_path, sequences=rows, max_restarts=5, epochs=1)
    with pytest.raises(TrainingError, match=r"training step \d: loss is nan .*user_idx=5, weight=inf.*lower train.learning_rate"):
        start(job)


def test_a_rank_lost_too_often_shows_its_trace(tmp_path: Path) -> None:
    job = write_job(tmp_path, max_restarts=1)
    (job.inputs / "items.npz").unlink()
    with pytest.raises(TrainingError, match=r"(?s)ranks failed 2 times.*rank-0: .*No such file.*items.npz") as caught:
        start(job)
    assert "running again goes on from the newest checkpoint" in str(caught.value)
    assert list(collect_errors(Path(job.folder))) == ["rank-0"]


def test_a_rank_lost_after_another_has_finished_is_noticed(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rank 1 leaves when the steps are done; rank 0 can't put the model where something else lies. No scratch folder stays."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr(tempfile, "tempdir", None)  # asked for anew
    job = write_job(tmp_path, ranks=2, epochs=1, max_restarts=1)
    Path(job.model_dir).write_text("in the way")
    with pytest.raises(TrainingError, match=r"(?s)ranks failed 2 times.*rank-0: .*model-abc"):
        launch(job.path, job.train, spark)
    assert not job.result.exists()
    assert not list(scratch.iterdir())
    assert os.environ["TMPDIR"] == str(scratch)


def test_a_rank_that_is_done_ends_before_python_does(tmp_path: Path) -> None:
    """What would abort in the interpreter's teardown is not reached, and what was printed is."""
    code = "import atexit, os; from recsys_spark.process import end_at_exit; atexit.register(os.abort); end_at_exit()"
    code += "; print('done', end='')"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "done")
