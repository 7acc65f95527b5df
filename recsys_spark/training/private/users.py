"""Who is in a step: each user by chance and by nothing else, which is what the promise of privacy is reckoned by."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Generator

import numpy as np
import torch

from recsys_spark.errors import TrainingError
from recsys_spark.training.catalogue import Catalogue
from recsys_spark.training.feed.augment import History
from recsys_spark.training.feed.batch import Batch
from recsys_spark.training.feed.batches import SEQUENCES, describe
from recsys_spark.training.feed.reader import Columns, read_shard
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
        columns = ("user_idx", "items", "weight") + (("moments",) if job.encoder.moments else ())
        self._rows, self.num_users = _users_rows(job, columns, rank, world)
        if self.num_users == 0:
            raise TrainingError(f"table '{SEQUENCES}'", "no rows", "users with two events or more", do="check pairs")
        users = self._rows["user_idx"]
        self._first = np.flatnonzero(np.concatenate([[True], users[1:] != users[:-1]])) if len(users) else np.zeros(0, np.int64)
        self._counts = np.diff(np.append(self._first, len(users)))
        self.sample_rate = min(1.0, privacy.users_per_step / self.num_users)
        self.rows_per_step = -(-round(self.sample_rate * self.num_users) // world)
        self.steps_per_epoch = round(1 / self.sample_rate)
        self.feeds = {SEQUENCES: self}

    def from_step(self, step: int) -> Generator[tuple[Batch, Callable[[], str]]]:
        """Endless batches, each with a description of its rows; a training that goes on draws others than before."""
        generator = np.random.default_rng(secrets.randbits(128))
        while True:
            drawn = generator.random(len(self._first)) < self.sample_rate
            rows = self._first[drawn] + generator.integers(0, self._counts[drawn])
            columns = {name: values[rows] for name, values in self._rows.items()}
            yield self._batch(columns), lambda columns=columns: describe({SEQUENCES: columns})  # type: ignore[misc]
            step += 1

    def _batch(self, columns: Columns) -> Batch:
        device = self._catalogue.device
        sequences = self._catalogue.positions(columns["items"], SEQUENCES)
        none = torch.zeros((0, 2), dtype=torch.int64, device=device)
        weights = torch.tensor(columns["weight"], dtype=torch.float32, device=device)
        moments = torch.tensor(columns["moments"], dtype=torch.int64, device=device) if "moments" in columns else None
        history = None if moments is None else History(sequences, moments)
        return Batch(sequences, weights, none, none[:, 0].float(), history=history)


def _users_rows(job: TrainJob, columns: tuple[str, ...], rank: int, world: int) -> tuple[Columns, int]:
    """Rows of this rank's users, user by user, and how many users there are in all."""
    kept: list[Columns] = []
    everyone: list[np.ndarray] = []  # type: ignore[type-arg]
    if job.sequence_files:
        with contextlib.closing(read_shard(sorted(job.sequence_files), columns)) as groups:
            for group in groups:
                mine = group["user_idx"] % world == rank
                kept.append({name: values[mine] for name, values in group.items()})
                everyone.append(np.unique(group["user_idx"]))
    if not kept:
        return {}, 0
    whole = {name: np.concatenate([group[name] for group in kept]) for name in columns}
    order = np.argsort(whole["user_idx"], kind="stable")
    return {name: values[order] for name, values in whole.items()}, len(np.unique(np.concatenate(everyone)))
