"""User tower: causal attention over the history of item vectors, one unit vector for each position in it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys_spark.config.moments import Part
from recsys_spark.encoder.query_table import QueryTable


class Block(nn.Module):
    """One pre-norm transformer block: ``x + attention(norm(x))``, then ``x + mlp(norm(x))``."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.chance = heads, dropout
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BLD: Tensor, allowed_B1LL: Tensor) -> Tensor:
        x_BLD = x_BLD + self.dropout(self._attention(self.norm_attention(x_BLD), allowed_B1LL))
        mixed_BLD: Tensor = x_BLD + self.dropout(self.mlp(self.norm_mlp(x_BLD)))
        return mixed_BLD

    def _attention(self, x_BLD: Tensor, allowed_B1LL: Tensor) -> Tensor:
        batch, length, width = x_BLD.shape
        split = self.query_key_value(x_BLD).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)  # each [B, heads, L, width / heads]
        chance = self.chance if self.training else 0.0
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed_B1LL, dropout_p=chance)
        mixed: Tensor = self.out(seen.transpose(1, 2).reshape(batch, length, width))
        return mixed


class UserTower(nn.Module):
    """States [B, L, D] of histories [B, L, D]; state l has seen items 0..l and nothing later.

    A causal transformer as in SASRec (Kang & McAuley 2018). Positions are learned and counted from the end: the newest
    item is always at position 0, so padding on the left, or a shorter array, changes nothing. Items further back than
    ``max_history`` share the last position. Each part of a moment (``recsys_spark.config.moments``: the time since the item
    before, hour, weekday, device) adds a vector of its own; for times after TiSASRec (Li et al. 2020), which learns one for
    every pair of items. What was searched for adds one made of its text (``queries``).
    """

    def __init__(
        self, dimension: int, layers: int, heads: int, max_history: int, dropout: float, parts: Sequence[Part] = ()
    ) -> None:
        super().__init__()
        self.scale = math.sqrt(dimension)  # unit vectors have components of about 1/sqrt(D); the blocks expect about 1
        self.positions = nn.Embedding(max_history, dimension)
        nn.init.normal_(self.positions.weight, std=0.02)
        self.blocks = nn.ModuleList(Block(dimension, heads, dropout) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(dimension)
        self._parts = tuple(part for part in parts if not part.is_query)
        self._query = next((part for part in parts if part.is_query), None)
        self.queries: QueryTable | None = None
        tables = [nn.Embedding(part.size, dimension) for part in self._parts]
        for table in tables:
            nn.init.normal_(table.weight, std=0.02)
        self.moments = nn.ModuleList(tables)

    def forward(self, history_BLD: Tensor, is_item_BL: Tensor, moments_BL: Tensor | None = None) -> Tensor:
        """Unit states [B, L, D]; zero at padding. ``is_item_BL`` is False at padding, whose vectors are not read.

        ``moments_BL``: int64, read by a tower with parts of them; None: nothing is known.
        """
        length = history_BLD.shape[1]
        from_end_L = torch.arange(length - 1, -1, -1, device=history_BLD.device).clamp(max=self.positions.num_embeddings - 1)
        items_BLD = history_BLD.masked_fill(~is_item_BL[..., None], 0.0)
        x_BLD = items_BLD * self.scale + self.positions(from_end_L)
        known_BL = torch.zeros_like(is_item_BL, dtype=torch.int64) if moments_BL is None else moments_BL
        for part, table in zip(self._parts, self.moments, strict=True):
            x_BLD = x_BLD + table(known_BL // part.unit % part.size)
        if self._query is not None and self.queries is not None:
            x_BLD = x_BLD + self.queries(known_BL // self._query.unit % self._query.size)
        x_BLD = self.dropout(x_BLD)
        allowed_B1LL = _allowed(is_item_BL)
        for block in self.blocks:
            x_BLD = block(x_BLD, allowed_B1LL)
        states_BLD = self.norm(x_BLD)
        states_BLD = states_BLD.float() if states_BLD.dtype == torch.bfloat16 else states_BLD
        unit_BLD: Tensor = F.normalize(states_BLD, dim=-1) * is_item_BL[..., None]
        return unit_BLD


def _allowed(is_item_BL: Tensor) -> Tensor:
    """Who may look at whom, bool [B, 1, L, L]: real items not after oneself; oneself always, else padding has nothing."""
    length = is_item_BL.shape[1]
    causal_LL = torch.ones(length, length, dtype=torch.bool, device=is_item_BL.device).tril()
    itself_LL = torch.eye(length, dtype=torch.bool, device=is_item_BL.device)
    return ((causal_LL & is_item_BL[:, None, :]) | itself_LL)[:, None]
