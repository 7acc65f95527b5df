"""Matryoshka: any loss, learned by the first few dimensions too, so that vectors may be cut short when served."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from recsys_spark.encoder.losses.comparison import Comparison, Loss


def matryoshka(loss: Loss, dims: Sequence[int], weights: Sequence[float] = ()) -> Loss:
    """A loss that is the weighted mean of ``loss`` on the first d dimensions, for each d of ``dims``.

    ``loss'_b = sum_d w_d loss_b(x[:d] / |x[:d]|) / sum_d w_d`` (Kusupati et al. 2022, arXiv 2205.13147, with the mean in place of
    the sum, so that learning rates stay as they are). Prefixes are brought to unit length, as they would be when served. With the
    whole length as the only d it is ``loss``.

    Args:
        loss: a value per anchor from a comparison.
        dims: lengths of the prefixes.
        weights: one for each; empty: all 1.
    """
    shares = list(weights) or [1.0] * len(dims)

    def nested(comparison: Comparison) -> Tensor:
        terms = [share * loss(comparison.prefix(d)) for d, share in zip(dims, shares, strict=True)]
        return sum(terms[1:], terms[0]) / sum(shares)

    return nested
