"""Validation recall: how many held-out items are among the top k of the whole catalogue."""

from __future__ import annotations

import torch
from torch import Tensor

from recsys_spark.encoder.model import Encoder
from recsys_spark.training.catalogue import PAD, Catalogue
from recsys_spark.training.distributed import Ranks
from recsys_spark.training.feed.augment import History
from recsys_spark.training.step.lengths import last_states
from recsys_spark.training.step.train_step import TrainStep

_MAX_SCORES = 1 << 24  # scores held at once
_ITEMS_AT_ONCE = 8_192


@torch.no_grad()
def hits_at_k(encoder: Encoder, vectors: Tensor, rows: History, k: int) -> Tensor:
    """Whether each sequence's last item is in the top k given the items before it; items of the history are left out.

    Ties go to the lower position. A target that is also in the history cannot be found, and one that is padding does
    not count as a hit.

    Args:
        vectors: float [N, D], all items.
        rows: positions [B, L+1], padded on the left with -1; the last is the target.

    Returns:
        bool [B].
    """
    scores, wanted, possible = masked_scores(encoder, vectors, rows)
    best = scores.gather(1, wanted[:, None])
    earlier = torch.arange(scores.shape[1], device=scores.device)[None, :] < wanted[:, None]
    rank = (scores > best).sum(1) + ((scores == best) & earlier).sum(1)
    return possible & (rank < k)


@torch.no_grad()
def masked_scores(encoder: Encoder, vectors: Tensor, rows: History) -> tuple[Tensor, Tensor, Tensor]:
    """Scores [B, N] with items of the history at -inf, the position [B] of each row's last item, and whether that is an
    item outside of the history, bool [B]."""
    history, target = rows.items[:, :-1], rows.items[:, -1]
    is_item = history != PAD
    moments = None if rows.moments is None else rows.moments[:, :-1]
    scores = last_states(encoder, vectors, History(history, moments)) @ vectors.T
    own = torch.zeros_like(scores, dtype=torch.bool)
    own[is_item.nonzero()[:, 0], history[is_item]] = True
    wanted = target.clamp(min=0)
    possible = (target != PAD) & ~own.gather(1, wanted[:, None])[:, 0]
    return scores.masked_fill(own, float("-inf")), wanted, possible


def recall(encoder: Encoder, vectors: Tensor, sequences: History | None, k: int, ranks: Ranks) -> float | None:
    """Share of all ranks' validation sequences with a hit; each rank brings its own. None when nobody has any."""
    found = torch.zeros(2, dtype=torch.float64, device=vectors.device)
    if sequences is not None:
        size = max(1, _MAX_SCORES // len(vectors))
        for rows in sequences.split(size):
            found[0] += hits_at_k(encoder, vectors, rows, k).sum()
        found[1] = len(sequences.items)
    hits, users = ranks.sum(found).tolist()
    return hits / users if users else None


@torch.no_grad()
def all_item_vectors(model: TrainStep, catalogue: Catalogue, ranks: Ranks) -> Tensor:
    """Vectors [N, D] of all items, each rank encoding an equal part."""
    size = -(-len(catalogue) // ranks.world)
    positions = torch.arange(size, device=catalogue.device) + ranks.rank * size
    parts = [model.encode(block) for block in torch.split(positions.clamp(max=len(catalogue) - 1), _ITEMS_AT_ONCE)]
    return ranks.gather_constant(torch.cat(parts))[: len(catalogue)]
