"""Adversarial training in embedding space: the loss once more, with every id part moved against it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def moved(weights: Tensor, epsilon: float) -> Iterator[None]:
    """Within the block, each row of ``weights`` stands ``epsilon`` further in the direction of its gradient.

    ``r = epsilon * g / ||g||`` for each row with a gradient g: the fast gradient method on embeddings, Miyato et al. 2017
    (arXiv 1605.07725, eq. 5), with a norm per item, so that rare items are moved as far as others. Rows without a gradient
    stay. With several ranks g is the mean over them, hence the same everywhere.
    """
    kept = weights.detach().clone()
    if weights.grad is not None:
        direction = weights.grad / weights.grad.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
        with torch.no_grad():
            weights.add_(direction, alpha=epsilon)
    try:
        yield
    finally:
        with torch.no_grad():
            weights.copy_(kept)
