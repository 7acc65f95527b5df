"""Texts to vectors where the text encoder learns: little padding, and few activations held at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from recsys_spark.encoder.adapt import dropped_words
from recsys_spark.encoder.text_encoder import TextEncoder
from recsys_spark.training.catalogue import Catalogue

_HELD = 256  # texts whose activations are held; with more, those of each part are computed again for the gradient
_ALIKE = 32  # texts of a part on a CPU: fewer are padded less, and more parts add more gradients of all the words' vectors


def text_vectors(encoder: TextEncoder, catalogue: Catalogue, positions: Tensor, word_dropout: float = 0.0) -> Tensor:
    """Text vectors [n, T] of positions [n], with gradients.

    Parts hold texts of like length, each padded to its own longest: on a CPU time goes with the tokens, padding included. A
    GPU gets larger parts, for there time goes with their number.

    Args:
        word_dropout: chance that a word is left out.
    """
    ids, counts = catalogue.tokens(positions)
    order = torch.argsort(counts, descending=True, stable=True)
    again = torch.is_grad_enabled() and len(positions) > _HELD
    parts = []
    for rows in torch.split(order, _ALIKE if ids.device.type == "cpu" else _HELD):
        of_part, lengths = ids[rows, : max(1, int(counts[rows[0]]))], counts[rows]
        if word_dropout > 0:
            of_part, lengths = dropped_words(of_part, lengths, word_dropout)
        parts.append(checkpoint(encoder, of_part, lengths, use_reentrant=False) if again else encoder(of_part, lengths))
    return torch.cat(parts)[torch.argsort(order)]
