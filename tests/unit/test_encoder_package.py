"""The model folder: what goes in comes out, and a folder that was tampered with is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from recsys_spark.config.learning import EncoderSettings
from recsys_spark.encoder.model import Encoder
from recsys_spark.encoder.package import model_identity, read_description, save_fusion, save_model
from recsys_spark.encoder.packaged_model import load_model
from recsys_spark.encoder.text_encoder import TextEncoder
from recsys_spark.errors import RegistryError

SETTINGS = EncoderSettings(text_model="tiny", dtype="float32", dimension=8, max_tokens=16, user_layers=1, max_history=5)
IDS = ["plain", "quote\"'", "slash/and\nnewline \U0001f600"]


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(0)
    made = Encoder(SETTINGS, 32, len(IDS))
    with torch.no_grad():
        made.item_tower.ids.weight.normal_()
    return made


@pytest.fixture
def folder(encoder: Encoder, tmp_path: Path) -> Path:
    return save_model(tmp_path / "model", encoder, TextEncoder.load("tiny", 16, "float32"), IDS, 0.07, {"cutoff": "2024"})


def test_what_goes_in_comes_out(folder: Path, encoder: Encoder) -> None:
    model = load_model(folder)
    assert model.settings == SETTINGS
    assert model.known_items == {name: row for row, name in enumerate(IDS)}
    assert (model.temperature, model.fusion, model.recipe) == (0.07, {}, {"cutoff": "2024"})
    texts, ids = ["garden rake", "", "kitchen pan", "garden rake"], [IDS[2], IDS[1], "unknown", None]
    found = model.encode_items(texts, ids)
    text_vectors = torch.tensor(TextEncoder.load("tiny", 16, "float32").encode(texts))
    with torch.no_grad():
        expected = encoder.eval().item_vectors(text_vectors, torch.tensor([2, 1, -1, -1])).numpy()
        np.testing.assert_array_equal(found, expected)
        mask = np.array([[False, True, True]])
        users = encoder.user_vectors(torch.tensor(found[None, :3]), torch.tensor(mask)).numpy()
    np.testing.assert_array_equal(model.encode_users(found[None, :3], mask), users)
    np.testing.assert_array_equal(model.encode_histories(found, np.array([[-1, 1, 2]])), users)
    np.testing.assert_allclose(model.encode_items(texts)[0], found[3], atol=1e-7)
    assert model.encode_users(np.zeros((2, 0, 8), np.float32), np.zeros((2, 0), bool)).shape == (2, 8)


def test_nothing_in_the_folder_can_run_code(folder: Path) -> None:
    assert {p.suffix for p in folder.rglob("*") if p.is_file()} == {".json", ".safetensors"}


def test_saving_again_replaces_the_folder_whole(folder: Path, encoder: Encoder) -> None:
    (folder / "left over").write_text("x")
    before = model_identity(folder)
    save_model(folder, encoder, TextEncoder.load("tiny", 16, "float32"), IDS, 0.07, {})
    assert not (folder / "left over").exists()
    assert model_identity(folder) == before
    save_fusion(folder, {"all": {"encoder": 1.0}})
    assert load_model(folder).fusion == {"all": {"encoder": 1.0}}


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def test_another_tokenizer_is_refused(folder: Path) -> None:
    edit(folder / "text_model" / "tokenizer.json", version="1.1")
    for read in (load_model, read_description):
        with pytest.raises(RegistryError, match=r"tokenizer [0-9a-f]{12}; expected tokenizer [0-9a-f]{12}; .*download"):
            read(folder)


def test_an_unknown_format_is_refused(folder: Path) -> None:
    edit(folder / "encoder.json", format=1)
    with pytest.raises(RegistryError, match="format 1; expected format 3"):
        load_model(folder)


@pytest.mark.parametrize(
    "name", ["encoder.json", "weights.safetensors", "known_items.json", "attributes.json", "text_model/tokenizer.json"]
)
def test_a_file_that_is_gone_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(RegistryError, match=f"no {name}"):
        load_model(folder)


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    edit(folder / "encoder.json", text_dim=16)
    with pytest.raises(RegistryError, match="weights do not fit the settings"):
        load_model(folder)


def test_known_items_must_match_the_embedding(folder: Path) -> None:
    (folder / "known_items.json").write_text('["plain"]')
    with pytest.raises(RegistryError, match="1 known items; expected 3"):
        load_model(folder)
