"""What an encoder learns from many users under differential privacy, beside one that promises nothing; a synthetic log.

python -m benchmarks.quality.private_users [--users 40000] [--epsilon 8] [--epochs 5] [--dropout 0] [--rate 0.003]

Users have two of 40 topics and go on to a fixed next item four times of ten; the text of an item tells its topic and no more.
So what texts know stands at the start, and what only users tell is left to learn. ``--epsilon 0``: no privacy, 256 users a
step. After each epoch a line of JSON: steps, validation recall at 10 of 4,000 other users. Single process, no Spark.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from recsys_spark.config.learning import EncoderSettings, TrainSettings
from recsys_spark.training.catalogue import save_catalogue
from recsys_spark.training.distributed import Ranks
from recsys_spark.training.job import TrainJob
from recsys_spark.training.trainer import Trainer

NUM_ITEMS, NUM_TOPICS, TEXT_DIM, LENGTH, VALIDATION_USERS = 3_000, 40, 384, 12, 4_000
GOES_ON, OTHER_TOPIC = 0.4, 0.3
Ints = NDArray[np.int64]


class World:
    """The same items, topics and successors for every seed of users."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.topic = rng.integers(0, NUM_TOPICS, NUM_ITEMS)
        popularity = 1.0 / (1 + rng.permutation(NUM_ITEMS)) ** 0.7
        self.members = [np.flatnonzero(self.topic == topic) for topic in range(NUM_TOPICS)]
        self.shares = [np.cumsum(popularity[items] / popularity[items].sum()) for items in self.members]
        self.after = np.zeros(NUM_ITEMS, dtype=np.int64)
        for items in self.members:
            ring = rng.permutation(items)
            self.after[ring] = np.roll(ring, -1)
        texts = rng.normal(size=(NUM_TOPICS, TEXT_DIM))[self.topic] + 1.5 * rng.normal(size=(NUM_ITEMS, TEXT_DIM))
        self.texts = (texts / np.linalg.norm(texts, axis=1, keepdims=True)).astype(np.float32)

    def users(self, number: int, seed: int) -> pa.Table:
        """Rows of ``training_sequences``."""
        rng = np.random.default_rng(seed)
        items = np.full((number, LENGTH), -1, dtype=np.int32)
        lengths, favourites = rng.integers(4, LENGTH + 1, number), rng.integers(0, NUM_TOPICS, (number, 2))
        last: Ints | None = None
        for step in range(LENGTH):
            topics = favourites[np.arange(number), (rng.random(number) < OTHER_TOPIC).astype(int)]
            now = self._by_popularity(topics, rng.random(number))
            if last is not None:
                now = np.where(rng.random(number) < GOES_ON, self.after[last], now)
            last = now
            items[step >= LENGTH - lengths, step] = now[step >= LENGTH - lengths]
        numbers = np.arange(number, dtype=np.int32)
        weight = np.ones(number, dtype=np.float32)
        columns = {"user_idx": numbers, "items": list(items), "num_items": lengths.astype(np.int32), "weight": weight}
        return pa.table({name: pa.array(values) for name, values in columns.items()})

    def _by_popularity(self, topics: Ints, draws: NDArray[np.float64]) -> Ints:
        found = np.empty(len(topics), dtype=np.int64)
        for topic, (members, shares) in enumerate(zip(self.members, self.shares, strict=True)):
            here = topics == topic
            found[here] = members[np.minimum(np.searchsorted(shares, draws[here]), len(members) - 1)]
        return found


def job(folder: Path, asked: argparse.Namespace) -> TrainJob:
    """The training job of so many users, its files written."""
    world, numbers = World(), np.arange(NUM_ITEMS)
    save_catalogue(folder / "inputs", numbers, numbers, [f"i{n}" for n in numbers], text_vectors=world.texts)
    for name, table in (("sequences", world.users(asked.users, 1)), ("validation", world.users(VALIDATION_USERS, 2))):
        (folder / name).mkdir()
        pq.write_table(table, folder / name / "part-0.parquet", row_group_size=10_000)
    private: dict[str, Any] = {"privacy": {"epsilon": asked.epsilon}} if asked.epsilon else {"batch_size": 256}
    how = {"item_item_share": 0.0, "calibrate": False, "negatives": "catalogue", "learning_rate": asked.rate}
    shape = {"dimension": 64, "user_layers": 1, "max_history": LENGTH - 1, "dropout": asked.dropout}
    return TrainJob(
        folder=str(folder),
        fingerprint="private-users",
        model_dir=str(folder / "model"),
        seed=11,
        encoder=EncoderSettings(text_model="tiny", **shape),
        train=TrainSettings(epochs=asked.epochs, **how, **private),
        sequence_files=(f"file:{folder}/sequences/part-0.parquet",),
        pair_files=(),
        validation_files=(f"file:{folder}/validation/part-0.parquet",),
    )


def main() -> None:
    """Train, and tell of every epoch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=40_000)
    parser.add_argument("--epsilon", type=float, default=8.0)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--rate", type=float, default=0.003)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(job(Path(scratch), asked), Ranks(0, 1, torch.device("cpu"), None, None))
        noise = None if trainer.private is None else round(trainer.private.multiplier, 3)
        print(json.dumps({"steps": 0, "recall": trainer.validate(), "noise_multiplier": noise}), flush=True)
        stream, epoch, start = trainer.batches.from_step(0), trainer.schedule.steps_per_epoch, time.perf_counter()
        for number, (batch, rows) in enumerate(islice(stream, trainer.schedule.total_steps), 1):
            trainer.step(batch, rows)
            if number % epoch == 0:
                seconds = (time.perf_counter() - start) / number
                line = {"steps": number, "recall": trainer.validate(), "seconds_per_step": round(seconds, 2)}
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
