"""A model folder: everything needed to encode items and users, as JSON and safetensors, and nothing that runs code."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors.torch import save_file

from recsys_spark.config.learning import EncoderSettings
from recsys_spark.encoder.model import Encoder
from recsys_spark.encoder.query_table import QUERIES, save_queries
from recsys_spark.encoder.text_encoder import TextEncoder
from recsys_spark.errors import RegistryError

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


def is_complete(folder: str | Path) -> bool:
    """Whether there is a model folder: ``save_model`` puts it in its place as a whole."""
    return (Path(folder) / ENCODER_JSON).exists()


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


def read_description(folder: str | Path) -> Description:
    """Check a model folder and read what it says about itself, without loading a weight.

    Raises:
        RegistryError: as ``load_model``.
    """
    root = Path(folder)
    document = read_json(root / ENCODER_JSON)
    if document.get("format") != FORMAT:
        found = f"format {document.get('format')!r}"
        raise RegistryError(f"model {root}", found, f"format {FORMAT}", "use the version of the package that wrote it")
    check_tokenizer(root, str(document.get("tokenizer_sha")))
    try:
        settings = EncoderSettings.model_validate(document["settings"])
    except ValidationError as error:
        raise RegistryError(f"model {root}", f"settings: {error.errors()[0]['msg']}", f"those of format {FORMAT}") from None
    known = tuple(str(item_id) for item_id in read_json(root / KNOWN_ITEMS))
    if len(known) != int(document["num_known_items"]):
        raise RegistryError(f"model {root}", f"{len(known)} known items", str(document["num_known_items"]), AGAIN)
    values = tuple(str(value) for value in read_json(root / ATTRIBUTES))
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
        raise RegistryError(f"model {folder}", "no text_model/tokenizer.json", "the tokenizer it was trained with", AGAIN)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected_sha:
        raise RegistryError(f"model {folder}", f"tokenizer {found[:12]}", f"tokenizer {expected_sha[:12]}", AGAIN)


AGAIN = "the folder was changed after training: download the model version again"


def _write_json(path: Path, document: Any) -> None:
    path.write_text(json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False, default=str), encoding="utf-8")


def read_json(path: Path) -> Any:
    """A file of a model folder; RegistryError where it is absent or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RegistryError(f"model {path.parent}", f"no {path.name}", "a complete model folder", AGAIN) from None
    except ValueError as error:
        raise RegistryError(f"model {path.parent}", f"{path.name} is no JSON: {error}", do=AGAIN) from None
