"""Item tower: text, the item's id where it is known, and its attributes, to one unit vector."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys_spark.config.learning import EncoderSettings

UNKNOWN = -1  # id row of an item that training never saw
ID_INIT_STD = 0.02  # small: an item starts as its text says and moves away as far as its events carry it
HALFWAY_EVENTS = 5.0  # of an item that starts as half id and half text, where the gate is learned


class ItemTower(nn.Module):
    """Unit vectors [N, D] from text vectors [N, T], rows of the id embedding [N] and of the attribute embedding [N, A].

    With ``item_gate = "sum"``: ``v = normalise(project(text) + id + attributes)``. With ``"learned"``:
    ``v = normalise((1 - g) * (project(text) + attributes) + g * id)``, ``g = n / (n + exp(k))`` for an item of n fit events
    and a learned k in each dimension: the weight that a mean of n observations has against its prior (empirical Bayes,
    Efron & Morris 1973), so an item goes over from its text to its id as its events come in.

    The id part of an item is dropped with chance ``id_dropout`` in training (after DropoutNet, Volkovs et al. 2017), so the
    text alone must be able to stand in for it; an unknown id is treated the same. An item without text and attributes keeps
    its id, and one that has nothing gets the zero vector: its score is 0 with all. The attribute part is the mean of its
    values' vectors, each dropped with chance ``attribute_dropout``.

    Args:
        counts: fit events of each row of the id embedding, for the gate; they are kept with the weights.
        num_values: rows of the attribute embedding.
    """

    def __init__(
        self,
        settings: EncoderSettings,
        text_dim: int,
        num_known_items: int,
        counts: Sequence[float] | Tensor | None = None,
        num_values: int = 0,
    ) -> None:
        super().__init__()
        dimension, hidden = settings.dimension, max(settings.dimension, text_dim)
        # no gain and bias before a linear layer, which has its own: frozen texts then need no gradient, a fifth of the work
        norm = nn.LayerNorm(text_dim, elementwise_affine=False)
        self.project = nn.Sequential(norm, nn.Linear(text_dim, hidden), nn.GELU(), nn.Linear(hidden, dimension))
        self.ids = nn.Embedding(num_known_items, dimension) if settings.use_item_id and num_known_items else None
        if self.ids is not None:
            nn.init.normal_(self.ids.weight, std=ID_INIT_STD)
        self.values = nn.Embedding(num_values, dimension) if num_values else None
        if self.values is not None:
            nn.init.normal_(self.values.weight, std=ID_INIT_STD)
        self.id_dropout, self.attribute_dropout = settings.item_id_dropout, settings.attribute_dropout
        self.gate: nn.Parameter | None = None
        self.counts: Tensor
        if settings.item_gate == "learned" and self.ids is not None:
            self.gate = nn.Parameter(torch.full((dimension,), math.log(HALFWAY_EVENTS)))
            self.register_buffer("counts", torch.as_tensor([1.0] * num_known_items if counts is None else counts).float())

    def forward(self, text_vectors_NT: Tensor, id_rows_N: Tensor, value_rows_NA: Tensor | None = None) -> Tensor:
        """Item vectors [N, D]; ``id_rows_N`` int64, -1 where the id is unknown; a zero text vector means no text.

        ``value_rows_NA``: int64, padded with -1; None where the tower has no attributes.
        """
        has_text_N1 = (text_vectors_NT != 0).any(-1, keepdim=True)
        vectors_ND = self.project(text_vectors_NT) * has_text_N1
        described_N1 = has_text_N1
        if self.values is not None and value_rows_NA is not None:
            kept_NA = (value_rows_NA != UNKNOWN) & ~self._dropped(value_rows_NA, self.attribute_dropout)
            vectors_ND = vectors_ND + mean_values(self.values.weight, value_rows_NA, kept_NA)
            described_N1 = described_N1 | kept_NA.any(-1, keepdim=True)
        if self.ids is not None:
            dropped_N1 = self._dropped(id_rows_N, self.id_dropout)[:, None]
            kept_N1 = (id_rows_N != UNKNOWN)[:, None] & ~(dropped_N1 & described_N1)
            rows_N = id_rows_N.clamp(min=0)
            vectors_ND = self._mixed(vectors_ND, described_N1, self.ids(rows_N) * kept_N1, rows_N, kept_N1)
        return F.normalize(vectors_ND.float() if vectors_ND.dtype == torch.bfloat16 else vectors_ND, dim=-1)

    def _mixed(self, vectors_ND: Tensor, described_N1: Tensor, ids_ND: Tensor, rows_N: Tensor, kept_N1: Tensor) -> Tensor:
        if self.gate is None:
            return vectors_ND + ids_ND
        counts_N1 = self.counts[rows_N][:, None]
        gate_ND = torch.sigmoid(counts_N1.clamp(min=1e-6).log() - self.gate) * kept_N1  # n / (n + e^k)
        gate_ND = torch.where(described_N1, gate_ND, kept_N1.to(gate_ND.dtype))
        return (1 - gate_ND) * vectors_ND + gate_ND * ids_ND

    def _dropped(self, rows: Tensor, chance: float) -> Tensor:
        if not self.training or chance == 0:
            return torch.zeros_like(rows, dtype=torch.bool)
        return torch.rand(rows.shape, device=rows.device) < chance


def mean_values(weights_VD: Tensor, rows_NA: Tensor, kept_NA: Tensor) -> Tensor:
    """Mean [N, D] of the kept rows of an embedding [V, D]; zero without any. No [N, A, D] is made on the way."""
    counts_N = kept_NA.sum(1)
    starts_N = counts_N.cumsum(0) - counts_N
    return F.embedding_bag(rows_NA[kept_NA], weights_VD, starts_N, mode="mean")
