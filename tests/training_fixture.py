"""A small training job without Spark: walks over a ring of items, as Parquet files and an inputs folder."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from recsys_spark.config.learning import EncoderSettings, TrainSettings
from recsys_spark.training.catalogue import save_catalogue
from recsys_spark.training.distributed import Ranks, process_group
from recsys_spark.training.job import TrainJob
from recsys_spark.training.trainer import StepFigures, Trainer

ALONE = Ranks(0, 1, torch.device("cpu"), None, None)
NUM_ITEMS = 30
LENGTH = 7  # items of a sequence: 6 of history and the target
TEXT_DIM = 32  # that of the tiny text model


def write_files(folder: Path, columns: dict[str, np.ndarray], sizes: list[int]) -> tuple[str, ...]:
    """One file and row group for each of ``sizes``; matrices become arrays. Rows are dealt in order."""
    folder.mkdir(parents=True, exist_ok=True)
    urls, first = [], 0
    for number, size in enumerate(sizes):
        part = {name: _arrow(values[first : first + size]) for name, values in columns.items()}
        path = folder / f"part-{number:05d}.parquet"
        pq.write_table(pa.table(part), path)
        urls.append(f"file:{path}")
        first += size
    return tuple(urls)


def _arrow(values: np.ndarray) -> pa.Array:
    return pa.array(list(values)) if values.ndim == 2 else pa.array(values)


def walks(num_users: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Users who walk round a ring of items, one step at a time, with histories of different length."""
    rng = np.random.default_rng(seed)
    items = np.full((num_users, LENGTH), -1, dtype=np.int32)
    for user in range(num_users):
        length = int(rng.integers(2, LENGTH + 1))
        items[user, LENGTH - length :] = (rng.integers(0, NUM_ITEMS) + np.arange(length)) % NUM_ITEMS
    num_items = (items >= 0).sum(1).astype(np.int32)
    weight = np.linspace(0.5, 1.5, num_users).astype(np.float32)
    return {
        "user_idx": np.arange(num_users, dtype=np.int32),
        "items": items * 10 + 9 * (items < 0),
        "num_items": num_items,
        "weight": weight,
    }


def neighbours(num_pairs: int) -> dict[str, np.ndarray]:
    """Pairs of items that are next to each other on the ring."""
    anchor = np.arange(num_pairs, dtype=np.int32) % NUM_ITEMS
    weight = np.linspace(1.0, 2.0, num_pairs).astype(np.float32)
    return {"anchor_idx": anchor * 10, "item_idx": (anchor + 1) % NUM_ITEMS * np.int32(10), "weight": weight}


def write_job(
    folder: Path,
    sequence_sizes: list[int] | None = None,
    pair_sizes: list[int] | None = None,
    validation: int = 20,
    encoder: dict[str, Any] | None = None,
    sequences: dict[str, np.ndarray] | None = None,
    **train: Any,
) -> TrainJob:
    """A job whose item_idx are 0, 10, 20, ...; the last three items have no fit event."""
    sequence_sizes = [12, 12, 12, 12] if sequence_sizes is None else sequence_sizes
    pair_sizes = [10, 10] if pair_sizes is None else pair_sizes
    rng = np.random.default_rng(3)
    id_rows = np.arange(NUM_ITEMS)
    texts = [f"item number {i}" for i in range(NUM_ITEMS)]
    save_catalogue(
        folder / "job" / "inputs",
        np.arange(NUM_ITEMS) * 10,
        id_rows,
        [f"i{i}" for i in range(NUM_ITEMS)],
        text_vectors=rng.normal(size=(NUM_ITEMS, TEXT_DIM)).astype(np.float32),
        tokens=_tokens(texts) if (encoder or {}).get("text_training", "frozen") != "frozen" else None,
    )
    rows = walks(sum(sequence_sizes)) if sequences is None else sequences
    job = TrainJob(
        folder=str(folder / "job"),
        fingerprint="abc",
        model_dir=str(folder / "job" / "model-abc"),
        seed=11,
        encoder=EncoderSettings(
            **{"text_model": "tiny", "dimension": 8, "user_layers": 1, "max_history": 6, "max_tokens": 8} | (encoder or {})
        ),
        train=TrainSettings(**{"epochs": 2, "batch_size": 8, "pair_batch_size": 6, "learning_rate": 0.01} | train),
        sequence_files=write_files(folder / "sequences", rows, sequence_sizes),
        pair_files=write_files(folder / "pairs", neighbours(sum(pair_sizes)), pair_sizes) if pair_sizes else (),
        validation_files=write_files(folder / "validation", walks(validation, 5), [validation]) if validation else (),
    )
    job.save()
    return job


def _tokens(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    from recsys_spark.encoder.text_encoder import TextEncoder

    return TextEncoder.load("tiny", 8, "float32").tokenise(texts)


def torchrun(job: TrainJob, ranks: int) -> subprocess.Popen[str]:
    """Start the ranks with plain torchrun."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    environment = os.environ | {"RECSYS_SPARK_THREADS": "1", "PYTHONWARNINGS": "ignore::FutureWarning"}
    return subprocess.Popen(
        [*command, "-m", "recsys_spark.training.run", str(job.path)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run_ranks(job: TrainJob, ranks: int) -> tuple[int, str]:
    """Exit code and output of a whole torchrun."""
    with torchrun(job, ranks) as process:
        output, _ = process.communicate(timeout=240)
    return process.returncode, output


@contextmanager
def as_rank(rank: int, port: int) -> Iterator[Ranks]:
    """This process as one of two ranks."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with process_group(60) as ranks:
        yield ranks


def on_two_ranks(main: Callable[[int, int, str], None], folder: Path) -> list[dict[str, Any]]:
    """What two processes have left in ``<rank>.pt`` of the folder: each runs ``main(rank, port, folder)``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(main, args=(port, str(folder)), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def steps(trainer: Trainer, number: int) -> list[StepFigures]:
    """The figures of the trainer's next steps."""
    stream = trainer.batches.from_step(trainer.progress.step)
    try:
        return [trainer.step(batch, rows) for batch, rows in islice(stream, number)]
    finally:
        stream.close()


def stopped_and_resumed(job: TrainJob, ranks: Ranks, before: int, after: int) -> tuple[list[StepFigures], Trainer]:
    """The figures of a run that is stopped after ``before`` steps and goes on from its checkpoint, and its second trainer."""
    first = Trainer(job, ranks)
    found = steps(first, before)
    first.save()
    again = Trainer(job, ranks)
    again.resume()
    assert again.progress.step == before
    return found + steps(again, after), again
