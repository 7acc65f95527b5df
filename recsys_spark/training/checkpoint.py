"""Checkpoints: written whole or not at all, read without running code, the newest two kept."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from recsys_spark.log import get_logger

log = get_logger(__name__)
KEPT = 2
_PATTERN = "step-*.pt"
_BEST = "best.pt"


def save(folder: Path, fingerprint: str, step: int, state: dict[str, Any]) -> Path:
    """Write the checkpoint after ``step`` steps; of all in the folder the ``KEPT`` that were written last stay.

    By time, not by step: a job with another fingerprint, which begins at 0, must not lose its own to those of the one before.
    """
    path = folder / f"step-{step:09d}.pt"
    _write(path, {"fingerprint": fingerprint, "step": step, **state})
    others = sorted((old for old in folder.glob(_PATTERN) if old != path), key=lambda old: (old.stat().st_mtime_ns, old.name))
    for old in others[: 1 - KEPT]:
        old.unlink(missing_ok=True)
    return path


def save_best(folder: Path, fingerprint: str, state: dict[str, Any]) -> None:
    """Write the weights of the best epoch so far."""
    _write(folder / _BEST, {"fingerprint": fingerprint, **state})


def load_newest(folder: Path, fingerprint: str) -> dict[str, Any] | None:
    """The newest checkpoint of this job that can be read, or None; one of another job is left alone."""
    for path in sorted(folder.glob(_PATTERN), reverse=True):
        state = _read(path)
        if state is not None and state.get("fingerprint") == fingerprint:
            return state
    return None


def load_best(folder: Path, fingerprint: str) -> dict[str, Any] | None:
    """The weights of the best epoch, or None where no epoch was validated."""
    state = _read(folder / _BEST) if (folder / _BEST).exists() else None
    return state if state is not None and state.get("fingerprint") == fingerprint else None


def _write(path: Path, state: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
        log.warning("checkpoint cannot be read; trying an older one", path=str(path), reason=str(error)[:200])
        return None
    return state
