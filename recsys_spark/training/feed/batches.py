"""The rows of every step: sequences and pairs, each from its own feed, as positions in the catalogue."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys_spark.encoder.negatives import KnownPairs
from recsys_spark.errors import TrainingError
from recsys_spark.training.catalogue import Catalogue
from recsys_spark.training.feed.augment import History, changed, generator_of, neighbour_table, tail_weights, two_views
from recsys_spark.training.feed.batch import Batch, Outcomes
from recsys_spark.training.feed.profiles import load_profiles
from recsys_spark.training.feed.reader import Columns, Feed, read_all, row_groups
from recsys_spark.training.job import TrainJob

SEQUENCES, PAIRS, VALIDATION = "training_sequences", "training_pairs", "validation_sequences"
EXPLICIT = "training_negatives"
OUTCOMES, VALIDATION_OUTCOMES = "training_outcomes", "validation_outcomes"
_COLUMNS = {
    SEQUENCES: ("user_idx", "items", "weight"),
    PAIRS: ("anchor_idx", "item_idx", "weight"),
    EXPLICIT: ("user_idx", "items", "unwanted", "weight"),
    OUTCOMES: ("user_idx", "items", "item_idx", "outcome", "weight"),
}


class Batches:
    """The feeds of one rank. The sequences set the length of an epoch; the others go round at their own pace.

    Raises:
        TrainingError: nothing to train on, no outcome for the head to learn, or fewer row groups than ranks.
    """

    def __init__(self, job: TrainJob, catalogue: Catalogue, rank: int, world: int) -> None:
        self._catalogue, self._job, self._rank = catalogue, job, rank
        self._near = _neighbours(job, catalogue) if job.augment.substitutes else torch.zeros((0, 1), dtype=torch.int64)
        wanted = (
            (SEQUENCES, job.sequence_files, job.train.user_item_share, job.train.batch_size),
            (PAIRS, job.pair_files, job.train.item_item_share, job.train.pair_batch_size),
            (EXPLICIT, job.explicit_files, job.train.explicit_share, job.train.explicit_batch_size),
            (OUTCOMES, job.outcome_files, job.train.outcome_share, job.train.outcome_batch_size),
        )
        self.feeds = {
            table: Feed(table, files, columns_of(table, job), batch, job.seed, rank, world)
            for table, files, share, batch in wanted
            if share > 0 and any(row_groups(files))
        }
        self._profiles = load_profiles(job.inputs, catalogue) if job.train.profile_share > 0 else None
        if not self.feeds:
            raise TrainingError("training tables", "no rows for any loss whose share is above 0", do="check pairs and the shares")
        if job.train.outcome_share > 0 and OUTCOMES not in self.feeds:
            do = "check pairs.outcomes, or set train.outcome_share = 0: a head that learned nothing would be in the model"
            raise TrainingError(f"table '{OUTCOMES}'", "no rows", "events with an outcome", do)

    @property
    def steps_per_epoch(self) -> int:
        return next(iter(self.feeds.values())).plan.steps

    @property
    def rows_per_step(self) -> int:
        """Rows of all feeds that one rank uses in a step."""
        return sum(feed.plan.batch for feed in self.feeds.values())

    def from_step(self, step: int) -> Generator[tuple[Batch, Callable[[], str]]]:
        """Batches from global step ``step`` on, each with a description of its rows for an error."""
        with contextlib.ExitStack() as stack:
            streams = {t: stack.enter_context(contextlib.closing(feed.batches(step))) for t, feed in self.feeds.items()}
            while True:
                rows = {table: next(stream) for table, stream in streams.items()}
                yield self._changed(self._batch(rows, step), rows.get(SEQUENCES), step), lambda rows=rows: describe(rows)  # type: ignore[misc]
                step += 1

    def _batch(self, rows: dict[str, Columns], step: int) -> Batch:
        sequences, pairs = rows.get(SEQUENCES), rows.get(PAIRS)
        located = [
            torch.zeros((0, 2), dtype=torch.int64, device=self._catalogue.device)
            if columns is None
            else self._catalogue.positions(_items(columns), table)
            for table, columns in ((SEQUENCES, sequences), (PAIRS, pairs))
        ]
        batch = Batch(located[0], self._weights(sequences), located[1], self._weights(pairs))
        if OUTCOMES in rows:
            batch = replace(batch, outcomes=located_outcomes(rows[OUTCOMES], self._catalogue, OUTCOMES))
        if self._profiles is not None:
            seed = self._job.seed, "profiles", self._rank, step
            batch = replace(batch, profiles=self._profiles.drawn(self._job.train.profile_batch_size, seed))
        explicit = rows.get(EXPLICIT)
        if explicit is None:
            return batch
        histories, unwanted = (self._catalogue.positions(explicit[name], EXPLICIT) for name in ("items", "unwanted"))
        return replace(batch, explicit_sequences=histories, explicit_items=unwanted, explicit_weights=self._weights(explicit))

    def _changed(self, batch: Batch, columns: Columns | None, step: int) -> Batch:
        """The batch with what ``[augment]`` asks for; all that is drawn depends on (seed, rank, step) alone."""
        settings, device = self._job.augment, self._catalogue.device
        if settings.tail_power > 0:
            batch = self._weighted(batch, settings.tail_power)
        moments = None if columns is None or "moments" not in columns else torch.tensor(columns["moments"], dtype=torch.int64)
        if len(batch.sequences) == 0 or not (settings.changes_sequences or settings.view_share > 0 or moments is not None):
            return batch
        draw = generator_of((self._job.seed, "augment", self._rank, step))
        sequences, history, views = batch.sequences.cpu(), None, None
        if settings.view_share > 0:
            newest = History(sequences, moments).last(sequences.shape[1] - 1)
            views = two_views(newest, settings, draw, self._near).to(device)
        if settings.changes_sequences:
            sequences, history = changed(sequences, moments, settings, draw, self._catalogue.known.cpu(), self._near)
        elif moments is not None:
            history = History(sequences[:, :-1], moments[:, :-1])
        history = None if history is None else history.to(device)
        return replace(batch, sequences=sequences.to(device), history=history, views=views)

    def _weighted(self, batch: Batch, power: float) -> Batch:
        counts = self._catalogue.num_events
        targets = tail_weights(batch.sequences[:, 1:], counts, power) * batch.sequence_weights
        return replace(
            batch, sequence_weights=targets, pair_weights=tail_weights(batch.pairs, counts, power) * batch.pair_weights
        )

    def _weights(self, columns: Columns | None) -> Tensor:
        weights = np.zeros(0, dtype=np.float32) if columns is None else columns["weight"]
        return torch.tensor(weights, dtype=torch.float32, device=self._catalogue.device)


def _items(columns: Columns) -> NDArray[Any]:
    return columns["items"] if "items" in columns else np.stack([columns["anchor_idx"], columns["item_idx"]], axis=1)


def _neighbours(job: TrainJob, catalogue: Catalogue) -> Tensor:
    """Neighbours int64 [N, M] of each position, from all training pairs.

    Raises:
        TrainingError: there are no pairs.
    """
    rows = read_all(job.pair_files, _COLUMNS[PAIRS])
    if rows is None:
        raise TrainingError(
            f"table '{PAIRS}'", "no rows to substitute items by", do="enable a source of pairs, or set substitute_chance = 0"
        )
    anchors, items = catalogue.positions(_items(rows), PAIRS).cpu().numpy().T
    return torch.from_numpy(neighbour_table(anchors, items, rows["weight"], len(catalogue), job.augment.neighbours))


def columns_of(table: str, job: TrainJob) -> tuple[str, ...]:
    """What is read of a table of sequences, pairs, dislikes or outcomes."""
    return _COLUMNS[table] + (("moments",) if table in (SEQUENCES, OUTCOMES) and job.encoder.moments else ())


def located_outcomes(columns: Columns, catalogue: Catalogue, table: str) -> Outcomes:
    """Rows of ``training_outcomes`` or ``validation_outcomes`` with items as positions.

    Raises:
        TrainingError: an item that is not in the catalogue.
    """
    device = catalogue.device
    moments = torch.tensor(columns["moments"], dtype=torch.int64, device=device) if "moments" in columns else None
    numbers = [torch.tensor(columns[name], dtype=torch.float32, device=device) for name in ("outcome", "weight")]
    history = History(catalogue.positions(columns["items"], table), moments)
    return Outcomes(history, catalogue.positions(columns["item_idx"], table), *numbers)


def validation_outcomes(job: TrainJob, catalogue: Catalogue) -> Outcomes | None:
    """All rows of ``validation_outcomes``, or None without any."""
    rows = read_all(job.validation_outcome_files, columns_of(OUTCOMES, job))
    return None if rows is None else located_outcomes(rows, catalogue, VALIDATION_OUTCOMES)


def validation_sequences(job: TrainJob, catalogue: Catalogue, rank: int, world: int) -> History | None:
    """This rank's validation sequences [B, L+1] as positions, with moments where the user tower reads them, or None."""
    rows = read_all(job.validation_files, ("items", "moments") if job.encoder.moments else ("items",), rank, world)
    if rows is None:
        return None
    moments = torch.tensor(rows["moments"], dtype=torch.int64, device=catalogue.device) if "moments" in rows else None
    return History(catalogue.positions(rows["items"], VALIDATION), moments)


def known_pairs(job: TrainJob, catalogue: Catalogue) -> KnownPairs | None:
    """All pairs of ``training_pairs``, the same on every rank, where the negatives are masked by them."""
    if job.train.mask_known_pairs == "off":
        return None
    rows = read_all(job.pair_files, _COLUMNS[PAIRS][:2])
    pairs = np.zeros((0, 2), np.int32) if rows is None else _items(rows)
    located = catalogue.positions(pairs, PAIRS)
    return KnownPairs(located[:, 0], located[:, 1])


def describe(rows: dict[str, Columns], at_most: int = 5) -> str:
    """A few rows of each table, those whose weight is no number first."""
    parts = []
    for table, columns in rows.items():
        names = [name for name, values in columns.items() if values.ndim == 1]
        bad = np.flatnonzero(~np.isfinite(columns["weight"]))
        chosen = (bad if len(bad) else np.arange(len(columns["weight"])))[:at_most]
        shown = ", ".join("(" + ", ".join(f"{n}={columns[n][i]}" for n in names) + ")" for i in chosen)
        parts.append(f"{table}: {shown}" + (f" and {len(columns['weight']) - len(chosen)} more" if not len(bad) else ""))
    return "; ".join(parts)
