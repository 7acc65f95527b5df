"""One step with differential privacy: shortened gradients of all ranks, noise, and from there on what anybody may do."""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from recsys_spark.config.learning import TrainSettings
from recsys_spark.config.privacy import PrivacySettings
from recsys_spark.training.catalogue import Catalogue
from recsys_spark.training.distributed import Ranks
from recsys_spark.training.feed.batch import Batch
from recsys_spark.training.feed.plan import Schedule
from recsys_spark.training.private.accounting import delta_of, noise_multiplier, spent
from recsys_spark.training.private.gradient import Clipped, PublicCandidates, clipped_gradient
from recsys_spark.training.private.users import DrawnUsers
from recsys_spark.training.step.lengths import by_length
from recsys_spark.training.step.train_step import TrainStep

_MAX_HELD = 1 << 25  # numbers: scores, and gradients of single users by the user tower's weights


class PrivateStep:
    """Gradients for the encoder out of the users drawn for a step.

    Noise is added to the sum of the gradients by the user tower's weights and by the vectors of all items, drawn or not;
    what the item tower learns of the latter is made of noised numbers alone, and needs none of its own (post-processing:
    Dwork & Roth 2014, proposition 2.1). The noise comes from the operating system and is kept nowhere.
    """

    def __init__(self, model: TrainStep, catalogue: Catalogue, train: TrainSettings, users: DrawnUsers, plan: Schedule) -> None:
        assert train.privacy is not None  # noqa: S101 - who makes this has it
        self._model, self._catalogue, self._train, self._users = model, catalogue, train, users
        self.settings: PrivacySettings = train.privacy
        self.delta = delta_of(self.settings, users.num_users)
        self.multiplier = noise_multiplier(self.settings.epsilon, self.delta, users.sample_rate, plan.total_steps)

    def backward(self, batch: Batch, ranks: Ranks) -> float:
        """Set the gradients of the encoder's weights; returns the mean loss of the users drawn, which no noise hides."""
        encoder, tower = self._model.encoder, self._model.encoder.user_tower
        torch.manual_seed(batch.shared_seed)  # dropout of items, and the candidates: the same on every rank, and no secret
        vectors_ND = self._model.encode(torch.arange(len(self._catalogue), device=self._catalogue.device))
        candidates = self._candidates()
        torch.manual_seed(secrets.randbits(63))
        weights = {name: p.detach() for name, p in tower.named_parameters()}
        summed = self._summed(weights, vectors_ND.detach(), batch, candidates, float(encoder.temperature))
        found = torch.cat([summed.losses_B.sum()[None], summed.losses_B.new_tensor([len(summed.losses_B)])])
        loss, drawn = ranks.sum(found).tolist()
        gradients = [ranks.sum(g) for g in (summed.vectors_ND, *summed.weights.values())]
        expected = self._users.sample_rate * self._users.num_users
        by_vectors, *by_weights = [g / expected for g in self._noised(gradients, ranks)]
        torch.autograd.backward(vectors_ND, by_vectors)
        for parameter, gradient in zip(tower.parameters(), by_weights, strict=True):
            parameter.grad = gradient
        return float(loss / max(drawn, 1))

    def facts(self, steps: int) -> dict[str, Any]:
        """What has been promised and kept to after so many steps."""
        users = self._users
        return {
            "epsilon": spent(self.multiplier, self.delta, users.sample_rate, steps),
            "delta": self.delta,
            "noise_multiplier": self.multiplier,
            "clip_norm": self.settings.clip_norm,
            "users": users.num_users,
            "sample_rate": users.sample_rate,
        }

    def _candidates(self) -> PublicCandidates:
        """The whole catalogue, or as many items as are asked for, each with the same chance."""
        size, device = len(self._catalogue), self._catalogue.device
        if self._train.negatives == "catalogue" or self._train.num_negatives >= size:
            return PublicCandidates(torch.arange(size, device=device), size)
        drawn = torch.randperm(size)[: self._train.num_negatives].sort().values
        return PublicCandidates(drawn.to(device), size)

    def _summed(
        self, weights: dict[str, Tensor], vectors_ND: Tensor, batch: Batch, candidates: PublicCandidates, temperature: float
    ) -> Clipped:
        """Of this rank's users, some at a time: those of like length together."""
        nobody = torch.zeros(0, device=vectors_ND.device)
        zeros = {name: torch.zeros_like(p) for name, p in weights.items()}
        total = Clipped(zeros, torch.zeros_like(vectors_ND), nobody, nobody)
        moments = None if batch.history is None else batch.history.moments
        size = sum(p.numel() for p in weights.values())
        for group, width in by_length(batch.sequences) if len(batch.sequences) else ():
            columns = slice(batch.sequences.shape[1] - max(width, 2), None)
            at_once = max(1, _MAX_HELD // max(size, width * len(candidates.positions)))
            for users in torch.split(group, at_once):
                rows = batch.sequences[users][:, columns], None if moments is None else moments[users][:, columns]
                how = (candidates, temperature, self.settings.clip_norm)
                total = _added(total, clipped_gradient(self._states, weights, vectors_ND, rows, *how))
        return total

    def _states(self, weights: dict[str, Tensor], items_LD: Tensor, is_item_L: Tensor, moments_L: Tensor | None) -> Tensor:
        moments = None if moments_L is None else moments_L[None]
        found: Tensor = functional_call(self._model.encoder.user_tower, weights, (items_LD[None], is_item_L[None], moments))
        return found[0]

    def _noised(self, gradients: list[Tensor], ranks: Ranks) -> list[Tensor]:
        """With the same noise on every rank: its seed is the first rank's."""
        mine = torch.tensor([secrets.randbits(62) for _ in range(4)], device=gradients[0].device)
        generator = np.random.default_rng(ranks.gather_constant(mine).tolist()[: len(mine)])
        scale = self.multiplier * self.settings.clip_norm
        return [g + scale * _normals(generator, g) for g in gradients]


def _normals(generator: np.random.Generator, like: Tensor) -> Tensor:
    drawn = torch.from_numpy(generator.standard_normal(tuple(like.shape), dtype=np.float32))
    return drawn.to(like.device, like.dtype)


def _added(total: Clipped, more: Clipped) -> Clipped:
    weights = {name: total.weights[name] + g for name, g in more.weights.items()}
    told = [torch.cat(pair) for pair in ((total.losses_B, more.losses_B), (total.norms_B, more.norms_B))]
    return Clipped(weights, total.vectors_ND + more.vectors_ND, *told)
