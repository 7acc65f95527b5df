"""Texts to vectors where the text encoder learns: little padding, and few activations held at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from recsys_spark.encoder.adapt import dropped_words
from recsys_spark.encoder.text_encoder import TextEncoder
from recsys_spark.training.catalogue import Catalogue

_HELD_BYTES = 4 << 30  # of activations held on a CPU; of more, those of each part are computed again for the gradient
_PART_ON_GPU = 1024  # its time goes with the number of parts: 256 took three times as long for 1,024 short texts
_BYTES_PER_STATE = 34  # activations of a transformer layer, for each number in its token states in 16 bits
_FEWEST, _MOST = 32, 128  # texts of a part on a CPU, which starts each of some hundred operations a part
_PARTS = 16  # as many make little of a catalogue padding


def text_vectors(encoder: TextEncoder, catalogue: Catalogue, positions: Tensor, word_dropout: float = 0.0) -> Tensor:
    """Text vectors [n, T] of positions [n], with gradients.

    Parts hold texts of like length, each padded to its own longest: on a CPU time goes with the tokens, padding included. A
    GPU gets larger parts, for there time goes with their number. Activations are held as long as there is room for them.

    Args:
        word_dropout: chance that a word is left out.
    """
    ids, counts = catalogue.tokens(positions)
    order = torch.argsort(counts, descending=True, stable=True)
    again = torch.is_grad_enabled() and _fills(encoder, int(counts.sum()), ids.device)
    parts = []
    for rows in torch.split(order, _part_size(len(order), ids.device)):
        of_part, lengths = ids[rows, : max(1, int(counts[rows[0]]))], counts[rows]
        if word_dropout > 0:
            of_part, lengths = dropped_words(of_part, lengths, word_dropout)
        parts.append(checkpoint(encoder, of_part, lengths, use_reentrant=False) if again else encoder(of_part, lengths))
    return torch.cat(parts)[torch.argsort(order)]


def _part_size(num_texts: int, device: torch.device) -> int:
    return _PART_ON_GPU if device.type != "cpu" else min(max(_FEWEST, num_texts // _PARTS), _MOST)


def _fills(encoder: TextEncoder, num_tokens: int, device: torch.device) -> bool:
    """Whether the activations of so many tokens would take more than there is room for.

    Per layer 34 bytes for each number in 16 bits, twice that in 32 (Korthikanti et al. 2022, arXiv 2205.05198, equation 1,
    without its term for attention, which is small for short texts).
    """
    config = encoder.model.config
    numbers = num_tokens * int(config.num_hidden_layers) * encoder.dimension  # type: ignore[union-attr, arg-type]
    return 2 * _BYTES_PER_STATE * numbers > _room(device)


def _room(device: torch.device) -> float:
    """Bytes that activations may take: half of a GPU's free memory; a fixed amount of a host's, which other ranks use too."""
    if device.type == "cpu":
        return _HELD_BYTES
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return free / 2
