"""Who is in a step: each user by chance and by nothing else, which is what the promise of privacy is reckoned by."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Generator

import numpy as np
import torch

from recsys_spark.errors import TrainingError
from recsys_spark.training.catalogue import Catalogue
from recsys_spark.training.feed.augment import History
from recsys_spark.training.feed.batch import Batch
from recsys_spark.training.feed.batches import SEQUENCES, columns_of, describe
from recsys_spark.training.feed.reader import Columns, read_all
from recsys_spark.training.job import TrainJob


class DrawnUsers:
    """Steps of users, each drawn with the same chance and apart from all others (Poisson sampling), in place of ``Batches``.

    All rows are read once, through Petastorm, and stay in memory: of the users that are this rank's. Of somebody with
    several rows a step takes one. Who is drawn is a secret of this process: the seed of the configuration is not one.

    Raises:
        TrainingError: no user.
    """

    def __init__(self, job: TrainJob, catalogue: Catalogue, rank: int, world: int) -> None:
        self._catalogue, privacy = catalogue, job.train.privacy
        assert privacy is not None  # noqa: S101 - who asks for this has it
        rows = read_all(job.sequence_files, columns_of(SEQUENCES, job))
        if rows is None:
            raise TrainingError(f"table '{SEQUENCES}'", "no rows", "users with two events or more", do="check pairs")
        order = np.argsort(rows["user_idx"], kind="stable")
        mine = order[rows["user_idx"][order] % world == rank]
        self._rows = {name: values[mine] for name, values in rows.items()}
        _, self._first, self._counts = np.unique(self._rows["user_idx"], return_index=True, return_counts=True)
        self.num_users = len(np.unique(rows["user_idx"]))
        self.sample_rate = min(1.0, privacy.users_per_step / self.num_users)
        self.rows_per_step = -(-round(self.sample_rate * self.num_users) // world)
        self.steps_per_epoch = round(1 / self.sample_rate)

    def from_step(self, _: int) -> Generator[tuple[Batch, Callable[[], str]]]:
        """Endless batches, each with a description of its rows; a training that goes on draws others than before."""
        generator = np.random.default_rng(secrets.randbits(128))
        while True:
            drawn = generator.random(len(self._first)) < self.sample_rate
            rows = self._first[drawn] + generator.integers(0, self._counts[drawn])
            columns = {name: values[rows] for name, values in self._rows.items()}
            yield self._batch(columns), lambda columns=columns: describe({SEQUENCES: columns})  # type: ignore[misc]

    def _batch(self, columns: Columns) -> Batch:
        device = self._catalogue.device
        sequences = self._catalogue.positions(columns["items"], SEQUENCES)
        none = torch.zeros((0, 2), dtype=torch.int64, device=device)
        weights = torch.tensor(columns["weight"], dtype=torch.float32, device=device)
        moments = torch.tensor(columns["moments"], dtype=torch.int64, device=device) if "moments" in columns else None
        history = None if moments is None else History(sequences, moments)
        return Batch(sequences, weights, none, none[:, 0].float(), history=history)
