"""Who stands against the positives of the user-item loss in a step, and how often each was expected to."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recsys_spark.config.losses import LossSettings
from recsys_spark.encoder.negatives import Sampler, log_in_batch
from recsys_spark.training.catalogue import Catalogue


@dataclass(frozen=True)
class Candidates:
    """C distinct items, the same on every rank. ``draws`` and ``log_expected`` float [C]: see ``encoder.losses.Comparison``."""

    positions: Tensor
    draws: Tensor | None = None
    log_expected: Tensor | None = None


class CandidateSource:
    """Names a step's candidates by ``negatives``: the batch's items, the whole catalogue, or items drawn by chance.

    Items without a fit event are never drawn: nothing could teach them to be anything but a negative.
    """

    def __init__(self, settings: LossSettings, catalogue: Catalogue) -> None:
        self._kind, self._number, self._catalogue = settings.negatives, settings.num_negatives, catalogue
        self._corrected = settings.loss in ("sampled_softmax", "nce")
        self._sampler: Sampler | None = None
        if settings.negatives in ("uniform", "popularity") and len(catalogue.known):
            power = 0.0 if settings.negatives == "uniform" else settings.popularity_power
            self._sampler = Sampler(catalogue.num_events, catalogue.id_rows >= 0, power)

    def of(self, batch_items: Tensor, targets: Tensor, places: int, seed: int) -> Candidates:
        """The candidates of a step.

        Args:
            batch_items: int64 [G], ascending: all items of the global batch.
            targets: int64 [T], ascending: the distinct targets among them.
            places: how many targets the global batch has, counted with repetitions.
            seed: the same on every rank, another one in every step.
        """
        if self._kind == "in_batch":
            if self._corrected:  # how often other items of a batch come is not known: by histories' and pairs' own rules
                return Candidates(targets, log_expected=log_in_batch(self._catalogue.num_events, targets, places))
            return Candidates(batch_items)
        if self._sampler is None:
            return Candidates(self._catalogue.known)
        drawn = self._sampler.draw(self._number, seed)
        positions = torch.unique(torch.cat([targets, drawn.positions]))
        draws = torch.zeros(len(positions), device=positions.device)
        draws[torch.searchsorted(positions, drawn.positions)] = drawn.times
        return Candidates(positions, draws, self._sampler.log_expected(positions, self._number) if self._corrected else None)
