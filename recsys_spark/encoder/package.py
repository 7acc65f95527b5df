"""A model folder: everything needed to encode items and users, as JSON and safetensors, and nothing that runs code."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from recsys_spark.config.learning import EncoderSettings
from recsys_spark.encoder.attributes import attribute_rows
from recsys_spark.encoder.item_tower import UNKNOWN
from recsys_spark.encoder.model import Encoder
from recsys_spark.encoder.query_table import QUERIES, load_queries, save_queries
from recsys_spark.encoder.text_encoder import TextEncoder
from recsys_spark.encoder.text_source import Dtype
from recsys_spark.errors import InputError, RegistryError

FORMAT = 3
ENCODER_JSON, WEIGHTS, KNOWN_ITEMS, TEXT_MODEL = "encoder.json", "weights.safetensors", "known_items.json", "text_model"
ATTRIBUTES = "attributes.json"
FUSION_JSON, RECIPE_JSON = "fusion.json", "recipe.json"
Fusion = dict[str, dict[str, float]]


def save_model(
    folder: str | Path,
    encoder: Encoder,
    text_encoder: TextEncoder,
    known_item_ids: Sequence[str],
    temperature: float,
    recipe: dict[str, Any],
    attribute_values: Sequence[str] = (),
    calibrated_temperature: float | None = None,
) -> Path:
    """Write the model folder; a folder that is there is replaced as a whole, so a half-written one is never found.

    Args:
        known_item_ids: item_id of each row of the id embedding, in order.
        temperature: the one the model was trained at, in the end.
        recipe: what made it: the config and facts, JSON values only.
        attribute_values: ``name=value`` of each row of the attribute embedding, in order.
        calibrated_temperature: of probabilities, fitted on validation; None: it was not.
    """
    target = Path(folder)
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    description = {
        "format": FORMAT,
        "settings": encoder.settings.model_dump(mode="json"),
        "text_dim": encoder.text_dim,
        "num_known_items": encoder.num_known_items,
        "temperature": float(temperature),
        "calibrated_temperature": calibrated_temperature,
        "outcome_head": encoder.outcome is not None,
        "profile_tower": encoder.profile is not None,
        "tokenizer_sha": text_encoder.tokenizer_sha,
    }
    _write_json(partial / ENCODER_JSON, description)
    _write_json(partial / KNOWN_ITEMS, list(known_item_ids))
    _write_json(partial / ATTRIBUTES, list(attribute_values))
    _write_json(partial / RECIPE_JSON, recipe)
    weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in encoder.state_dict().items()}
    save_file(weights, partial / WEIGHTS)
    if (queries := encoder.user_tower.queries) is not None:
        save_queries(partial, queries.hashes, queries.vectors)
    text_encoder.save(partial / TEXT_MODEL)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    return target


def save_fusion(folder: str | Path, segments: Fusion) -> None:
    """Add the fusion weights (segment -> partner -> weight) to a model folder."""
    _write_json(Path(folder) / FUSION_JSON, {"segments": segments})


@dataclass(frozen=True)
class Description:
    """What a model folder says about itself; ``known_items`` and ``attribute_values`` in the order of the embeddings' rows."""

    settings: EncoderSettings
    text_dim: int
    known_items: tuple[str, ...]
    temperature: float
    attribute_values: tuple[str, ...] = ()
    calibrated_temperature: float | None = None
    outcome_head: bool = False
    profile_tower: bool = False


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
    fusion = _read_json(root / FUSION_JSON)["segments"] if (root / FUSION_JSON).exists() else {}
    recipe = _read_json(root / RECIPE_JSON) if (root / RECIPE_JSON).exists() else {}
    known = {item_id: row for row, item_id in enumerate(description.known_items)}
    how = (description.temperature, recipe, dtype or settings.dtype, values, description.calibrated_temperature)
    return PackagedModel(root, encoder.eval(), known, fusion, settings, *how)


def read_description(folder: str | Path) -> Description:
    """Check a model folder and read what it says about itself, without loading a weight.

    Raises:
        RegistryError: as ``load_model``.
    """
    root = Path(folder)
    document = _read_json(root / ENCODER_JSON)
    if document.get("format") != FORMAT:
        found = f"format {document.get('format')!r}"
        raise RegistryError(f"model {root}", found, f"format {FORMAT}", "use the version of the package that wrote it")
    check_tokenizer(root, str(document.get("tokenizer_sha")))
    try:
        settings = EncoderSettings.model_validate(document["settings"])
    except ValidationError as error:
        raise RegistryError(f"model {root}", f"settings: {error.errors()[0]['msg']}", f"those of format {FORMAT}") from None
    known = tuple(str(item_id) for item_id in _read_json(root / KNOWN_ITEMS))
    if len(known) != int(document["num_known_items"]):
        raise RegistryError(f"model {root}", f"{len(known)} known items", str(document["num_known_items"]), _AGAIN)
    values = tuple(str(value) for value in _read_json(root / ATTRIBUTES))
    calibrated = document.get("calibrated_temperature")
    dimensions = settings, int(document["text_dim"]), known
    parts = (bool(document.get(name, False)) for name in ("outcome_head", "profile_tower"))  # folders of before say nothing
    return Description(*dimensions, float(document["temperature"]), values, calibrated, *parts)


def model_identity(folder: str | Path) -> str:
    """Hash of all that decides a model's vectors: equal identities, equal vectors."""
    root = Path(folder)
    digest = hashlib.sha256()
    parts = [
        root / ENCODER_JSON,
        root / KNOWN_ITEMS,
        root / ATTRIBUTES,
        root / WEIGHTS,
        root / QUERIES,
        *sorted((root / TEXT_MODEL).glob("*.safetensors")),
    ]
    for path in parts:
        if path.exists():
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def check_tokenizer(folder: Path, expected_sha: str) -> None:
    """Refuse a tokenizer other than the one the model was trained with.

    Raises:
        RegistryError: tokenizer.json is absent or differs.
    """
    path = folder / TEXT_MODEL / "tokenizer.json"
    if not path.exists():
        raise RegistryError(f"model {folder}", "no text_model/tokenizer.json", "the tokenizer it was trained with", _AGAIN)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected_sha:
        raise RegistryError(f"model {folder}", f"tokenizer {found[:12]}", f"tokenizer {expected_sha[:12]}", _AGAIN)


_AGAIN = "the folder was changed after training: download the model version again"


def _load_weights(encoder: Encoder, root: Path) -> None:
    try:
        encoder.load_state_dict(load_file(root / WEIGHTS))
    except FileNotFoundError:
        raise RegistryError(f"model {root}", f"no {WEIGHTS}", "a complete model folder", _AGAIN) from None
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise RegistryError(f"model {root}", f"weights do not fit the settings: {reason}", do=_AGAIN) from None


def _write_json(path: Path, document: Any) -> None:
    path.write_text(json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False, default=str), encoding="utf-8")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RegistryError(f"model {path.parent}", f"no {path.name}", "a complete model folder", _AGAIN) from None
    except ValueError as error:
        raise RegistryError(f"model {path.parent}", f"{path.name} is no JSON: {error}", do=_AGAIN) from None
