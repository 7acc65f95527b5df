"""Checkpoints: whole or absent, of this job, the newest two."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from recsys_spark.training import checkpoint


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_two_are_kept_and_the_newest_is_loaded(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        checkpoint.save(tmp_path, "job", step, {"weights": torch.full((2,), float(step))})
    assert names(tmp_path) == ["step-000000010.pt", "step-000000015.pt"]
    state = checkpoint.load_newest(tmp_path, "job")
    assert state is not None
    assert state["step"] == 15
    torch.testing.assert_close(state["weights"], torch.full((2,), 15.0))


def test_a_damaged_one_is_passed_over(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, "job", 5, {})
    newest = checkpoint.save(tmp_path, "job", 10, {"weights": torch.zeros(100)})
    newest.write_bytes(newest.read_bytes()[:200])
    state = checkpoint.load_newest(tmp_path, "job")
    assert state is not None
    assert state["step"] == 5


def test_one_of_another_job_is_not_continued(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, "job", 5, {})
    assert checkpoint.load_newest(tmp_path, "other") is None
    assert checkpoint.load_newest(tmp_path / "absent", "job") is None


def test_a_write_that_dies_leaves_the_last_good_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path, "job", 5, {"weights": torch.ones(1)})

    def die(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", die)
    with pytest.raises(OSError, match="no space"):
        checkpoint.save(tmp_path, "job", 10, {})
    assert [n for n in names(tmp_path) if n.endswith(".pt")] == ["step-000000005.pt"]


def test_code_inside_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "sprung",))  # type: ignore[return-value]

    torch.save({"fingerprint": "job", "step": 9, "x": Trap()}, tmp_path / "step-000000009.pt")
    assert checkpoint.load_newest(tmp_path, "job") is None
    assert not (tmp_path / "sprung").exists()


def test_best_is_apart_from_the_newest(tmp_path: Path) -> None:
    checkpoint.save_best(tmp_path, "job", {"epoch": 3})
    checkpoint.save(tmp_path, "job", 5, {})
    best = checkpoint.load_best(tmp_path, "job")
    assert best is not None
    assert best["epoch"] == 3
    assert checkpoint.load_best(tmp_path, "other") is None
