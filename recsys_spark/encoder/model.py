"""The encoder: item tower and user tower in one space, with the temperature their scores are learned at."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recsys_spark.config.learning import EncoderSettings
from recsys_spark.encoder.item_tower import UNKNOWN, ItemTower
from recsys_spark.encoder.outcome_head import OutcomeHead
from recsys_spark.encoder.profile_tower import ProfileTower
from recsys_spark.encoder.query_table import QueryTable
from recsys_spark.encoder.user_tower import UserTower
from recsys_spark.errors import ConfigError

MIN_TEMPERATURE = 0.01  # a learned temperature stops here, as in CLIP (Radford et al. 2021)


class Encoder(nn.Module):
    """Legend: N items, B users, L history length, T text vector length, D = ``settings.dimension``.

    The text model is not part of it: its vectors come in, from a cache or from a ``TextEncoder``. ``counts`` and
    ``num_values`` are the item tower's. ``outcome_head``: whether there is one; without, nothing else is different.

    Raises:
        ConfigError: the dimension is not a multiple of the number of heads.
    """

    def __init__(
        self,
        settings: EncoderSettings,
        text_dim: int,
        num_known_items: int,
        temperature: float = 0.07,
        learn_temperature: bool = False,
        counts: Sequence[float] | Tensor | None = None,
        num_values: int = 0,
        outcome_head: bool = False,
    ) -> None:
        super().__init__()
        if settings.dimension % settings.user_heads:
            found = f"dimension {settings.dimension}, user_heads {settings.user_heads}"
            raise ConfigError("[encoder]", found, "a dimension that is a multiple of user_heads", "change one of them")
        self.settings, self.text_dim, self.num_known_items = settings, text_dim, num_known_items
        self.num_values = num_values
        self.item_tower = ItemTower(settings, text_dim, num_known_items, counts, num_values)
        self.user_tower = UserTower(
            settings.dimension,
            settings.user_layers,
            settings.user_heads,
            settings.max_history,
            settings.dropout,
            settings.moments,
        )
        self.outcome = OutcomeHead(settings.dimension) if outcome_head else None
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)), requires_grad=learn_temperature)
        self.profile: ProfileTower | None = None

    def with_profile_tower(self, wanted: bool = True) -> Encoder:
        """This encoder, with a profile tower if that is wanted: its weights are drawn after all others, which so start the
        same with and without it."""
        self.profile = ProfileTower(self.text_dim, self.settings.dimension) if wanted else None
        return self

    def with_queries(self, known: tuple[Tensor, Tensor] | None) -> Encoder:
        """This encoder, told of what was searched for: hashes int64 [Q] of known queries, their text vectors [Q, T]."""
        self.user_tower.queries = None if known is None else QueryTable(*known, self.settings.dimension)
        return self

    @property
    def temperature(self) -> Tensor:
        """Scalar that scores are divided by in the losses; has a gradient where it is learned."""
        return self.log_temperature.exp().clamp(min=MIN_TEMPERATURE)

    def item_vectors(self, text_vectors: Tensor, id_rows: Tensor, value_rows: Tensor | None = None) -> Tensor:
        """Item vectors [N, D] of unit length from text vectors [N, T], id rows int64 [N] (-1: unknown) and, where the
        settings name attributes, rows of their values int64 [N, A], padded with -1."""
        vectors: Tensor = self.item_tower(text_vectors, id_rows, value_rows)
        return vectors

    def profile_vectors(self, text_vectors: Tensor) -> Tensor:
        """Vectors [B, D] of users by the vectors [B, T] of their profile texts: those of unknown items with these texts,
        corrected by the profile tower where there is one."""
        unknown = torch.full((len(text_vectors),), UNKNOWN, device=text_vectors.device)
        as_items = self.item_vectors(text_vectors, unknown)
        vectors: Tensor = as_items if self.profile is None else self.profile(text_vectors, as_items)
        return vectors

    def user_states(self, history_vectors: Tensor, is_item: Tensor, moments: Tensor | None = None) -> Tensor:
        """States [B, L, D] of unit length; position l has seen items 0..l. Padding (``is_item`` False) gives zeros.

        ``moments``: int64 [B, L], when and where each item was met, for settings that name parts of it.
        """
        states: Tensor = self.user_tower(history_vectors, is_item, moments)
        return states

    def user_vectors(self, history_vectors: Tensor, is_item: Tensor, moments: Tensor | None = None) -> Tensor:
        """User vectors [B, D]: the state of the last position. Histories are padded on the left."""
        return self.user_tower.last(history_vectors, is_item, moments)
