"""The gradients of single users, shortened to one length and summed, without ever holding one of the item table."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from recsys_spark.training.catalogue import PAD
from recsys_spark.training.step.positions import locate

States = Callable[[dict[str, Tensor], Tensor, Tensor, Tensor | None], Tensor]  # weights, items [L, D], is_item, moments -> [L, D]


class PublicCandidates(NamedTuple):
    """What every state of every user is compared with, whatever users did: ascending positions int64 [C], of N items."""

    positions: Tensor
    num_items: int

    @property
    def offset(self) -> float:
        """Log of the N / C items that each stands for (sampled softmax, Bengio & Senecal 2008); 0 with the whole catalogue."""
        return math.log(self.num_items / len(self.positions))


class Clipped(NamedTuple):
    """Sums over users of gradients of at most the given length.

    Args:
        weights: of the user tower, by name.
        vectors_ND: of the item vectors.
        losses_B: of each user, mean over their counted states.
        norms_B: of each user's gradient, before it was shortened.
    """

    weights: dict[str, Tensor]
    vectors_ND: Tensor
    losses_B: Tensor
    norms_B: Tensor


class _Scores(NamedTuple):
    """The loss of B users and its gradients. Legend: L states, C candidates."""

    losses_B: Tensor
    candidates_BLC: Tensor  # by the scores of candidates
    targets_BL: Tensor  # by the scores of targets, over and above
    states_BLD: Tensor


@sdpa_kernel(SDPBackend.MATH)  # the others go user by user here
def clipped_gradient(
    states: States,
    weights: dict[str, Tensor],
    vectors_ND: Tensor,
    rows: tuple[Tensor, Tensor | None],
    candidates: PublicCandidates,
    temperature: float,
    clip_norm: float,
) -> Clipped:
    """Sum over users of ``g min(1, clip_norm / |g|)``, g the gradient of a user's own loss by the weights of the user tower
    and by all item vectors together (Abadi et al. 2016, algorithm 1).

    A user's loss is the softmax of what came next against the candidates, mean over their states; a candidate that is the
    target is left out, the target itself always stands beside them. The part of g in the item vectors has N rows; its
    length is found from L x L products, as in ghost clipping (Li et al. 2022), and the sum over users is one product.

    Args:
        states: the user tower of one user, states of unit length; no randomness but dropout's.
        vectors_ND: of all items.
        rows: positions int64 [B, L+1], padded on the left with -1, and moments [B, L+1] or None.
        temperature: scores are divided by it.
    """
    sequences, moments = rows
    history_BL, target_BL = sequences[:, :-1], sequences[:, 1:]
    moments = None if moments is None else moments[:, :-1]
    is_item_BL, counts_BL = history_BL != PAD, (history_BL != PAD) & (target_BL != PAD)
    items_BLD = vectors_ND[history_BL.clamp(min=0)]
    dims = (None, 0, 0, None if moments is None else 0)
    with torch.random.fork_rng():  # the same dropout when the gradient is made
        states_BLD = torch.func.vmap(states, dims, randomness="different")(weights, items_BLD, is_item_BL, moments)
    scores = _loss(states_BLD, target_BL, counts_BL, vectors_ND, candidates, temperature)
    by_states_BLD = scores.candidates_BLC @ vectors_ND[candidates.positions]
    by_states_BLD = by_states_BLD + scores.targets_BL[..., None] * vectors_ND[target_BL.clamp(min=0)]

    def through(by_LD: Tensor, items_LD: Tensor, is_item_L: Tensor, moments_L: Tensor | None) -> tuple[dict[str, Tensor], Tensor]:
        def product(weights: dict[str, Tensor], items_LD: Tensor) -> Tensor:
            return (states(weights, items_LD, is_item_L, moments_L) * by_LD).sum()

        found: tuple[dict[str, Tensor], Tensor] = torch.func.grad(product, argnums=(0, 1))(weights, items_LD)
        return found

    own, by_items_BLD = torch.func.vmap(through, (0, *dims[1:]), randomness="different")(
        by_states_BLD, items_BLD, is_item_BL, moments
    )
    positions_BK = torch.cat([target_BL, history_BL], 1)
    values_BKD = torch.cat([scores.targets_BL[..., None] * scores.states_BLD, by_items_BLD], 1)
    squares_B = sum((g.flatten(1).square().sum(1) for g in own.values()), torch.zeros_like(scores.losses_B))
    squares_B = squares_B + _squared_length(scores, positions_BK, values_BKD, candidates.positions)
    norms_B = squares_B.clamp(min=0).sqrt()
    shares_B = (clip_norm / norms_B.clamp(min=1e-12)).clamp(max=1.0)
    summed = {name: torch.einsum("b,b...->...", shares_B, g) for name, g in own.items()}
    return Clipped(summed, _by_vectors(scores, positions_BK, values_BKD, candidates, shares_B), scores.losses_B, norms_B)


def _loss(
    states_BLD: Tensor, target_BL: Tensor, counts_BL: Tensor, vectors_ND: Tensor, candidates: PublicCandidates, temperature: float
) -> _Scores:
    """Losses, and their gradients by the scores before these are divided by the temperature."""
    others_BLC = states_BLD @ vectors_ND[candidates.positions].T / temperature + candidates.offset
    columns_BL = locate(candidates.positions, target_BL)
    among_BL = candidates.positions[columns_BL] == target_BL
    at_BL1 = others_BLC.gather(2, columns_BL[..., None])
    others_BLC.scatter_(2, columns_BL[..., None], at_BL1.masked_fill(among_BL[..., None], -torch.inf))
    own_BL = (states_BLD * vectors_ND[target_BL.clamp(min=0)]).sum(-1) / temperature
    total_BL = torch.logaddexp(torch.logsumexp(others_BLC, 2), own_BL)
    each_BL = counts_BL.to(own_BL.dtype) / counts_BL.sum(1, keepdim=True).clamp(min=1)  # a user's states count alike
    losses_B = ((total_BL - own_BL) * each_BL).sum(1)
    scale_BL = each_BL / temperature
    by_candidates_BLC = others_BLC.sub_(total_BL[..., None]).exp_().mul_(scale_BL[..., None])
    return _Scores(losses_B, by_candidates_BLC, ((own_BL - total_BL).exp() - 1) * scale_BL, states_BLD)


def _squared_length(scores: _Scores, positions_BK: Tensor, values_BKD: Tensor, candidates: Tensor) -> Tensor:
    """Of each user's gradient by the item vectors [B]: of all candidates' rows, of the user's own, and what these share."""
    by_BLC, states_BLD = scores.candidates_BLC, scores.states_BLD
    dense_B = ((by_BLC @ by_BLC.mT) * (states_BLD @ states_BLD.mT)).sum((1, 2))
    same_BKK = (positions_BK[:, :, None] == positions_BK[:, None, :]) & (positions_BK != PAD)[:, None, :]
    sparse_B = ((values_BKD @ values_BKD.mT) * same_BKK).sum((1, 2))
    columns_BK = locate(candidates, positions_BK)
    among_BK = (candidates[columns_BK] == positions_BK) & (positions_BK != PAD)
    at_BLK = by_BLC.gather(2, columns_BK[:, None, :].expand(-1, by_BLC.shape[1], -1))
    shared_B = ((at_BLK.mT @ states_BLD) * values_BKD * among_BK[..., None]).sum((1, 2))
    return dense_B + sparse_B + 2 * shared_B


def _by_vectors(
    scores: _Scores, positions_BK: Tensor, values_BKD: Tensor, candidates: PublicCandidates, shares_B: Tensor
) -> Tensor:
    """Sum [N, D] over users of their shortened gradients by the item vectors."""
    dimension = values_BKD.shape[2]
    weighed_BLD = scores.states_BLD * shares_B[:, None, None]
    found_ND = weighed_BLD.new_zeros(candidates.num_items, dimension)
    found_ND[candidates.positions] = scores.candidates_BLC.flatten(0, 1).T @ weighed_BLD.flatten(0, 1)
    own = positions_BK != PAD
    return found_ND.index_add_(0, positions_BK[own], (values_BKD * shares_B[:, None, None])[own])
