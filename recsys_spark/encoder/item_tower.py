"""Item tower: a text vector, plus what was learned about the item's id where it is known, to one unit vector."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

UNKNOWN = -1  # id row of an item that training never saw
ID_INIT_STD = 0.02  # small: an item starts as its text says and moves away as far as its events carry it


class ItemTower(nn.Module):
    """Unit vectors [N, D] from text vectors [N, T] and rows of the id embedding [N].

    ``v = normalise(project(text) + id)``. The id part of an item is dropped with chance ``id_dropout`` in training
    (after DropoutNet, Volkovs et al. 2017), so the text alone must be able to stand in for it; an unknown id is treated
    the same. An item without text keeps its id, and one that has neither gets the zero vector: its score is 0 with all.
    """

    def __init__(self, text_dim: int, dimension: int, num_known_items: int, use_item_id: bool, id_dropout: float) -> None:
        super().__init__()
        hidden = max(dimension, text_dim)
        self.project = nn.Sequential(nn.LayerNorm(text_dim), nn.Linear(text_dim, hidden), nn.GELU(), nn.Linear(hidden, dimension))
        self.ids = nn.Embedding(num_known_items, dimension) if use_item_id and num_known_items else None
        if self.ids is not None:
            nn.init.normal_(self.ids.weight, std=ID_INIT_STD)
        self.id_dropout = id_dropout

    def forward(self, text_vectors_NT: Tensor, id_rows_N: Tensor) -> Tensor:
        """Item vectors [N, D]; ``id_rows_N`` int64, -1 where the id is unknown; a zero text vector means no text."""
        has_text_N1 = (text_vectors_NT != 0).any(-1, keepdim=True)
        vectors_ND = self.project(text_vectors_NT) * has_text_N1
        if self.ids is not None:
            kept_N1 = (id_rows_N != UNKNOWN)[:, None] & ~(self._dropped(id_rows_N)[:, None] & has_text_N1)
            vectors_ND = vectors_ND + self.ids(id_rows_N.clamp(min=0)) * kept_N1
        return F.normalize(vectors_ND.float() if vectors_ND.dtype == torch.bfloat16 else vectors_ND, dim=-1)

    def _dropped(self, id_rows_N: Tensor) -> Tensor:
        if not self.training or self.id_dropout == 0:
            return torch.zeros_like(id_rows_N, dtype=torch.bool)
        return torch.rand(id_rows_N.shape, device=id_rows_N.device) < self.id_dropout
