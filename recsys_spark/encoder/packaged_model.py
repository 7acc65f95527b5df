"""A loaded model folder: texts, items and histories in, vectors and probabilities out."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from recsys_spark.config.learning import EncoderSettings
from recsys_spark.encoder.attributes import attribute_rows
from recsys_spark.encoder.item_tower import UNKNOWN
from recsys_spark.encoder.model import Encoder
from recsys_spark.encoder.package import AGAIN, FUSION_JSON, RECIPE_JSON, TEXT_MODEL, WEIGHTS, Fusion, read_description, read_json
from recsys_spark.encoder.query_table import load_queries
from recsys_spark.encoder.text_encoder import TextEncoder
from recsys_spark.encoder.text_source import Dtype
from recsys_spark.errors import InputError, RegistryError


@dataclass(frozen=True)
class PackagedModel:
    """A loaded model folder. ``known_items``: item_id -> row of the id embedding; ``attribute_values``: name=value -> row
    of the attribute embedding; ``fusion``: segment -> weights."""

    folder: Path
    encoder: Encoder
    known_items: dict[str, int]
    fusion: Fusion
    settings: EncoderSettings
    temperature: float
    recipe: dict[str, Any]
    dtype: Dtype
    attribute_values: dict[str, int] = field(default_factory=dict)
    calibrated_temperature: float | None = None

    @functools.cached_property
    def text(self) -> TextEncoder:
        """The text encoder, loaded when first asked for: with cached text vectors it is never needed."""
        return TextEncoder.load(self.folder / TEXT_MODEL, self.settings.max_tokens, self.dtype)

    def id_rows(self, item_ids: Sequence[str | None]) -> NDArray[np.int64]:
        """Rows of the id embedding int64 [n]; -1 for an id that training did not see, or None."""
        return np.array([UNKNOWN if i is None else self.known_items.get(i, UNKNOWN) for i in item_ids], dtype=np.int64)

    def value_rows(self, values: Sequence[Sequence[str]]) -> NDArray[np.int64]:
        """Rows of the attribute embedding int64 [n, A] of each item's ``name=value``; those training did not see are left out."""
        return attribute_rows(values, self.attribute_values, self.settings.max_attribute_values)

    def encode_items(
        self,
        texts: Sequence[str],
        item_ids: Sequence[str | None] | None = None,
        values: Sequence[Sequence[str]] | None = None,
    ) -> NDArray[np.float32]:
        """Item vectors float32 [n, D] of unit length from texts and, where known, item ids and ``name=value`` of attributes."""
        rows = self.id_rows([None] * len(texts) if item_ids is None else item_ids)
        return self.encode_text_vectors(self.text.encode(texts), rows, None if values is None else self.value_rows(values))

    @torch.inference_mode()
    def encode_text_vectors(
        self, text_vectors: NDArray[np.float32], id_rows: NDArray[np.int64], value_rows: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """Item vectors float32 [n, D] from text vectors [n, T], id rows [n] and rows of attribute values [n, A]."""
        values = None if value_rows is None else torch.tensor(value_rows)
        vectors = self.encoder.item_vectors(torch.tensor(text_vectors, dtype=torch.float32), torch.tensor(id_rows), values)
        return np.asarray(vectors.numpy(), dtype=np.float32)

    def encode_profiles(self, texts: Sequence[str], batch_size: int = 64) -> NDArray[np.float32]:
        """Vectors float32 [n, D] of users of whom only a text is known; zeros for an empty one."""
        return self.encode_profile_vectors(self.text.encode(texts, batch_size))

    @torch.inference_mode()
    def encode_profile_vectors(self, text_vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """User vectors float32 [n, D] from vectors [n, T] of their profile texts."""
        vectors = self.encoder.profile_vectors(torch.tensor(text_vectors, dtype=torch.float32))
        return np.asarray(vectors.numpy(), dtype=np.float32)

    @torch.inference_mode()
    def encode_users(
        self, history_vectors: NDArray[np.float32], is_item: NDArray[np.bool_], moments: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """User vectors float32 [B, D] from left-padded histories of item vectors [B, L, D], their mask [B, L] and, for a model
        told of them, the moments [B, L] of the items (None: not known)."""
        if history_vectors.shape[0] == 0 or history_vectors.shape[1] == 0:
            return np.zeros((history_vectors.shape[0], self.settings.dimension), dtype=np.float32)
        vectors = self.encoder.user_vectors(
            torch.tensor(history_vectors, dtype=torch.float32),
            torch.tensor(is_item, dtype=torch.bool),
            None if moments is None else torch.tensor(moments, dtype=torch.int64),
        )
        return np.asarray(vectors.numpy(), dtype=np.float32)

    @torch.inference_mode()
    def next_item_chances(self, users: NDArray[np.float32], items: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probability [B, N] that each of the items is what the user meets next, given that it is one of them.

        Softmax of scores by the temperature that was fitted on validation, else by that of training.

        Args:
            users: [B, D].
            items: [N, D], all that may be next; leave out what the user has already where that does not come again.
        """
        scores = torch.tensor(users) @ torch.tensor(items).T / (self.calibrated_temperature or self.temperature)
        return np.asarray(scores.softmax(1).numpy(), dtype=np.float32)

    @torch.inference_mode()
    def outcome_chances(self, users: NDArray[np.float32], items: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probability [B] that an event of the user with the item of the same row turns out to be of the wanted kind.

        Args:
            users: [B, D], zeros for a user without a history.
            items: [B, D].

        Raises:
            InputError: the model was trained without an outcome head.
        """
        if self.encoder.outcome is None:
            expected, do = "a model that was trained with one", "train with train.outcome_share above 0"
            raise InputError(f"model {self.folder.name}", "no outcome head", expected, do)
        return np.asarray(self.encoder.outcome.chances(torch.tensor(users), torch.tensor(items)).numpy(), dtype=np.float32)

    def encode_histories(
        self, item_vectors: NDArray[np.float32], rows: NDArray[np.int64], moments: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """User vectors [B, D] from item vectors [N, D] and left-padded histories [B, L] of rows in them (-1: padding)."""
        if len(item_vectors) == 0 or rows.shape[1] == 0:
            return np.zeros((len(rows), self.settings.dimension), dtype=np.float32)
        return self.encode_users(item_vectors[rows.clip(min=0)], rows >= 0, moments)


def load_model(folder: str | Path, dtype: Dtype | None = None) -> PackagedModel:
    """Load a model folder, in evaluation mode, on the CPU; ``dtype`` of text encoding overrides the settings'.

    Raises:
        RegistryError: a file is absent, the format is unknown, or the tokenizer is not the one it was trained with.
    """
    root = Path(folder)
    description = read_description(root)
    settings = description.settings
    values = {value: row for row, value in enumerate(description.attribute_values)}
    shape = description.text_dim, len(description.known_items)
    encoder = Encoder(settings, *shape, num_values=len(values), outcome_head=description.outcome_head)
    encoder.with_profile_tower(description.profile_tower).with_queries(load_queries(root))
    _load_weights(encoder, root)
    fusion = read_json(root / FUSION_JSON)["segments"] if (root / FUSION_JSON).exists() else {}
    recipe = read_json(root / RECIPE_JSON) if (root / RECIPE_JSON).exists() else {}
    known = {item_id: row for row, item_id in enumerate(description.known_items)}
    how = (description.temperature, recipe, dtype or settings.dtype, values, description.calibrated_temperature)
    return PackagedModel(root, encoder.eval(), known, fusion, settings, *how)


def _load_weights(encoder: Encoder, root: Path) -> None:
    try:
        encoder.load_state_dict(load_file(root / WEIGHTS))
    except FileNotFoundError:
        raise RegistryError(f"model {root}", f"no {WEIGHTS}", "a complete model folder", AGAIN) from None
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise RegistryError(f"model {root}", f"weights do not fit the settings: {reason}", do=AGAIN) from None
