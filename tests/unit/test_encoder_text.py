"""Text vectors: order, masks, odd texts, dtypes, saving, and messages for models that are not there."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from recsys_spark.encoder import text_source
from recsys_spark.encoder.text_encoder import TextEncoder
from recsys_spark.errors import ConfigError

ODD = [
    "",
    "   ",
    "x" * 100_000,
    "word " * 20_000,
    "😀🎉 👩‍👩‍👧",
    "שלום עולם",
    "مرحبا",
    "a\x00b\ud800c",
    "日本語",
    "Garden RAKE",
    "garden rake",
]


@pytest.fixture(scope="module")
def tiny() -> TextEncoder:
    return TextEncoder.load("tiny", 16, "float32")


def test_vectors_keep_the_order_of_the_texts_whatever_the_batch(tiny: TextEncoder) -> None:
    together = tiny.encode(ODD, batch_size=3)
    assert together.dtype == np.float32
    assert together.shape == (len(ODD), tiny.dimension)
    alone = np.concatenate([tiny.encode([text]) for text in ODD])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    norms = np.linalg.norm(together, axis=1)
    np.testing.assert_allclose(norms, [0, 0, *[1] * (len(ODD) - 2)], atol=1e-6)
    np.testing.assert_allclose(together[-1], together[-2], atol=1e-6)  # case does not matter
    assert len(np.unique(np.round(together[2:], 4), axis=0)) == len(ODD) - 3  # all others differ: nothing is unknown
    assert tiny.encode([]).shape == (0, 32)


def test_like_texts_are_closer(tiny: TextEncoder) -> None:
    rake, rakes, pan = tiny.encode(["garden rake", "rakes for the garden", "kitchen pan"])
    assert rake @ rakes > rake @ pan + 0.2


def test_forward_is_the_mean_of_the_token_states_and_padding_does_not_count(tiny: TextEncoder) -> None:
    ids, counts = tiny.tokenise(["garden", "", "a much longer text than that one here"])
    assert ids.shape == (3, 16)
    assert ids.dtype == counts.dtype == np.int32
    assert counts[1] == 0
    assert not ids[1].any()
    assert not ids[0, counts[0] :].any()
    with torch.no_grad():
        found = tiny.forward(torch.tensor(ids), torch.tensor(counts)).numpy()
        states = tiny.model(input_ids=torch.tensor(ids[:1, : counts[0]]).long()).last_hidden_state[0].mean(0).numpy()
    np.testing.assert_allclose(found[0], states / np.linalg.norm(states), atol=1e-6)
    np.testing.assert_array_equal(found[1], np.zeros(32))


def test_gradients_are_finite_and_reach_only_the_layers_that_learn() -> None:
    encoder = TextEncoder.load("tiny", 16, "float32")
    assert encoder.train_only("frozen") == []
    learning = encoder.train_only("last_layers", 1)
    last = list(encoder.model.encoder.layer[-1].parameters())
    assert {id(w) for w in learning} == {id(w) for w in last}
    ids, counts = encoder.tokenise(["garden rake", ""])
    encoder(torch.tensor(ids), torch.tensor(counts))[:, 0].sum().backward()
    assert all(w.grad is not None and torch.isfinite(w.grad).all() for w in last)
    assert len(encoder.train_only("full")) == len(list(encoder.model.parameters()))


def test_saved_and_loaded_by_path_is_the_same(tiny: TextEncoder, tmp_path: Path) -> None:
    tiny.save(tmp_path / "text")
    sha = hashlib.sha256((tmp_path / "text" / "tokenizer.json").read_bytes()).hexdigest()
    again = TextEncoder.load(tmp_path / "text", 16, "float32")
    assert tiny.tokenizer_sha == again.tokenizer_sha == sha
    np.testing.assert_array_equal(tiny.encode(ODD), again.encode(ODD))
    again.save(tmp_path / "twice")
    assert (tmp_path / "twice" / "tokenizer.json").read_bytes() == (tmp_path / "text" / "tokenizer.json").read_bytes()
    files = {p.suffix for p in (tmp_path / "text").iterdir()}
    assert files == {".json", ".safetensors"}


def test_bfloat16_is_close_and_saves_the_full_weights(tiny: TextEncoder, tmp_path: Path) -> None:
    rounded = TextEncoder.load("tiny", 16, "bfloat16")
    assert rounded.dtype == torch.bfloat16
    cosines = (rounded.encode(ODD[2:]) * tiny.encode(ODD[2:])).sum(1)
    assert cosines.min() > 0.99
    rounded.save(tmp_path / "text")
    np.testing.assert_array_equal(TextEncoder.load(tmp_path / "text", 16, "float32").encode(ODD), tiny.encode(ODD))


def test_auto_takes_bfloat16_only_where_the_hardware_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for has, expected in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(text_source, "_cpu_has_bfloat16", lambda has=has: has)
        assert text_source.resolve_dtype("auto") == expected
        assert text_source.resolve_dtype("float32") == "float32"


def test_a_key_names_the_contents_of_a_folder_not_its_path(tiny: TextEncoder, tmp_path: Path) -> None:
    tiny.save(tmp_path / "one" / "text")
    tiny.save(tmp_path / "two" / "text")
    one, two = (text_source.text_model_key(str(tmp_path / n / "text"), 16, "float32") for n in ("one", "two"))
    assert one == two
    config = tmp_path / "two" / "text" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"layer_norm_eps": 1e-5}))
    assert text_source.text_model_key(str(tmp_path / "two" / "text"), 16, "float32") != one
    assert text_source.text_model_key("tiny", 16, "float32") != text_source.text_model_key("tiny", 8, "float32")
    assert text_source.text_dimension("tiny") == text_source.text_dimension(str(tmp_path / "one" / "text")) == 32


def test_minilm_knows_what_words_mean() -> None:
    encoder = TextEncoder.load("minilm", 64)
    assert encoder.dimension == text_source.text_dimension("minilm") == 384
    movie, film, soup = encoder.encode(["a scary movie", "horror film", "tomato soup recipe"])
    assert movie @ film > 0.5 > movie @ soup


@pytest.mark.parametrize(
    ("name", "found"),
    [("/no/such/folder", "no folder '/no/such/folder'"), ("no-such-owner/no-such-model", "cannot load 'no-such")],
)
def test_a_model_that_is_not_there_says_what_to_do(name: str, found: str) -> None:
    for ask in (lambda: TextEncoder.load(name, 16), lambda: text_source.text_dimension(name)):
        with pytest.raises(ConfigError, match=r"encoder\.text_model") as caught:
            ask()
        assert found in str(caught.value)
        assert "'minilm', 'tiny', a folder" in str(caught.value)
        assert caught.value.do


def test_an_empty_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot load"):
        TextEncoder.load(tmp_path, 16)


def test_loading_leaves_the_seed_alone_and_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    TextEncoder.load("tiny", 16, "float32")
    assert torch.equal(torch.rand(3), expected)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_tiny_is_the_same_in_every_process(tiny: TextEncoder) -> None:
    code = (
        "from recsys_spark.encoder.text_encoder import TextEncoder as T\n"
        "e = T.load('tiny', 16, 'float32'); print(e.tokenizer_sha, e.encode(['garden rake'])[0, :3].tolist())"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300).stdout
    assert printed.split()[0] == tiny.tokenizer_sha
    assert printed.strip().endswith(str(tiny.encode(["garden rake"])[0, :3].tolist()))
