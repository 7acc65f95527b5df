"""Rows a second that the feed gives, against rows a second that training steps use: a step must never wait for data.

The training is one with the default settings: frozen text, the whole catalogue as negatives, 128 sequences and 256 pairs
a step. Batches for the steps are in memory before they are timed, so the trainer is at its fastest.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.row import Figures, Scale
from benchmarks.speed.rivals.sgemm import threads
from benchmarks.timing import Way, alternate, scratch, warm_up
from recsys_spark.config.learning import EncoderSettings, TrainSettings
from recsys_spark.training.catalogue import save_catalogue
from recsys_spark.training.distributed import process_group
from recsys_spark.training.job import TrainJob
from recsys_spark.training.run import threads as rank_threads
from recsys_spark.training.trainer import Trainer

_NUM_FILES = 24  # as the pairs stage writes by default
_TEXT_DIM = 384  # of MiniLM


@dataclass(frozen=True)
class Sizes:
    """Rows of the tables, and steps that each side runs."""

    items: int
    sequences: int
    pairs: int
    feed_steps: int
    train_steps: int


FULL = Sizes(10_000, 200_000, 500_000, 1_500, 30)
SMALL = Sizes(200, 2_000, 3_000, 8, 2)


def feed(scale: Scale) -> Figures:
    """Row ``feed``."""
    sizes = scale.pick(FULL, SMALL)
    with scratch() as folder, threads(rank_threads(1)), process_group(60) as ranks:
        trainer = Trainer(write_job(folder / "job", sizes), ranks)
        with contextlib.closing(trainer.batches.from_step(0)) as stream:
            batches = list(itertools.islice(stream, sizes.train_steps))
        sides: dict[str, Way] = {
            "feed": functools.partial(_read, trainer, sizes.feed_steps),
            "train": lambda _target: _train(trainer, batches),
        }
        warm_up(sides, folder)
        rows = trainer.batches.rows_per_step
        work = {"feed": rows * sizes.feed_steps, "train": rows * sizes.train_steps}
        timed = alternate(sides, scale.rounds, folder, work, "rows")
    ratio = timed.ratio("train", "feed") * work["feed"] / work["train"]
    medians = {f"{side}_rows_per_s": done / timed.median_s(side) for side, done in work.items()}
    more = {"rows_per_step": rows, "threads": rank_threads(1), **vars(sizes)}
    return Figures(ratio, medians, timed.rounds, None, more)


def _read(trainer: Trainer, steps: int, _target: Path) -> None:
    """From opening the files to positions in the catalogue, as a step gets them."""
    with contextlib.closing(trainer.batches.from_step(0)) as stream:
        for _ in itertools.islice(stream, steps):
            pass


def _train(trainer: Trainer, batches: list[Any]) -> None:
    for batch, describe in batches:
        trainer.step(batch, describe)


def write_job(folder: Path, sizes: Sizes, seed: int = 5) -> TrainJob:
    """Training tables in the contracts' columns and the catalogue's inputs; histories are 2 to 51 items long."""
    rng = np.random.default_rng(seed)
    text = rng.normal(size=(sizes.items, _TEXT_DIM)).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    numbers = np.arange(sizes.items)
    save_catalogue(folder / "inputs", numbers, numbers, [str(n) for n in numbers], text_vectors=text)
    encoder = EncoderSettings()
    job = TrainJob(
        folder=str(folder),
        fingerprint="benchmark",
        model_dir=str(folder / "model"),
        seed=seed,
        encoder=encoder,
        train=TrainSettings(),
        sequence_files=write_table(folder / "sequences", _sequences(rng, sizes, encoder.max_history + 1)),
        pair_files=write_table(folder / "pairs", _pairs(rng, sizes)),
    )
    job.save()
    return job


def _popular(rng: np.random.Generator, num_items: int, shape: Any) -> npt.NDArray[np.int32]:
    chance = 1.0 / np.arange(10, num_items + 10) ** 0.9
    items: npt.NDArray[np.int32] = rng.choice(num_items, shape, p=chance / chance.sum()).astype(np.int32)
    return items


def _sequences(rng: np.random.Generator, sizes: Sizes, length: int) -> dict[str, npt.NDArray[Any]]:
    items = _popular(rng, sizes.items, (sizes.sequences, length))
    num_items = np.minimum(2 + rng.geometric(1 / 20, sizes.sequences), length).astype(np.int32)
    items[np.arange(length) < length - num_items[:, None]] = -1
    users = np.arange(sizes.sequences, dtype=np.int32)
    return {"user_idx": users, "items": items, "num_items": num_items, "weight": np.ones(sizes.sequences, np.float32)}


def _pairs(rng: np.random.Generator, sizes: Sizes) -> dict[str, npt.NDArray[Any]]:
    anchor, item = (_popular(rng, sizes.items, sizes.pairs) for _ in range(2))
    return {"anchor_idx": anchor, "item_idx": item, "weight": np.ones(sizes.pairs, np.float32)}


def write_table(folder: Path, columns: dict[str, npt.NDArray[Any]]) -> tuple[str, ...]:
    """As many files as the pairs stage writes, and their URLs."""
    folder.mkdir(parents=True)
    urls = []
    for number, rows in enumerate(np.array_split(np.arange(len(next(iter(columns.values())))), _NUM_FILES)):
        path = folder / f"part-{number:05d}.parquet"
        pq.write_table(pa.table({name: _arrow(values[rows]) for name, values in columns.items()}), path)
        urls.append(f"file:{path}")
    return tuple(urls)


def _arrow(values: npt.NDArray[Any]) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.ravel()))
