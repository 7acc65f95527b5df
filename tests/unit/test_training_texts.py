"""Texts encoded in parts of like length are what they are when encoded all at once, and so are their gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys_spark.encoder.text_encoder import TextEncoder
from recsys_spark.training.catalogue import Catalogue
from recsys_spark.training.step import texts
from recsys_spark.training.step.texts import text_vectors

WORDS = (1, 1, 2, 1, 3, 1, 6)
TEXTS = ["item " * WORDS[n % 7] + str(n) for n in range(70)] + [""]  # the last has no token


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    found = TextEncoder.load("tiny", 16, "float32")
    found.train_only("full")
    return found.eval()


@pytest.fixture(scope="module")
def catalogue(encoder: TextEncoder) -> Catalogue:
    numbers = np.arange(len(TEXTS))
    return Catalogue(numbers, numbers, [str(n) for n in numbers], tokens=encoder.tokenise(TEXTS))


def learned(encoder: TextEncoder, vectors: Tensor) -> tuple[Tensor, list[Tensor]]:
    weights = torch.linspace(-1, 1, vectors.numel()).reshape(vectors.shape)
    parameters = [p for p in encoder.parameters() if p.requires_grad]
    found = torch.autograd.grad((vectors * weights).sum(), parameters, allow_unused=True)
    return vectors.detach(), [g for g in found if g is not None]


@pytest.mark.parametrize("held", [4 << 30, 1_000])  # 1,000: less than the activations take, so parts are computed again
@pytest.mark.parametrize("size", [5, 32])
def test_parts_of_like_length_equal_all_texts_at_once(
    encoder: TextEncoder, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch, held: int, size: int
) -> None:
    monkeypatch.setattr(texts, "_HELD_BYTES", held)
    monkeypatch.setattr(texts, "_FEWEST", size)
    positions = torch.tensor(np.random.default_rng(0).permutation(len(TEXTS)))
    expected, gradients = learned(encoder, encoder(*catalogue.tokens(positions)))
    found, of_found = learned(encoder, text_vectors(encoder, catalogue, positions))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert len(of_found) == len(gradients) > 5
    for one, other in zip(of_found, gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("held", "times"), [(4 << 30, 1), (1_000, 2)])
def test_parts_are_computed_again_only_where_there_is_no_room(
    encoder: TextEncoder, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch, held: int, times: int
) -> None:
    monkeypatch.setattr(texts, "_HELD_BYTES", held)
    encoded: list[int] = []
    handle = encoder.register_forward_pre_hook(lambda _module, given: encoded.append(len(given[0])))
    text_vectors(encoder, catalogue, torch.arange(len(TEXTS))).sum().backward()
    handle.remove()
    encoder.zero_grad()
    assert sum(encoded) == times * len(TEXTS)


def test_parts_grow_with_the_catalogue_within_limits(
    encoder: TextEncoder, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "_FEWEST", 2)
    monkeypatch.setattr(texts, "_MOST", 7)
    sizes: list[int] = []
    handle = encoder.register_forward_pre_hook(lambda _module, given: sizes.append(len(given[0])))
    for num_texts in (10, 70, 300):  # a sixteenth of them would be 0, 4 and 18
        text_vectors(encoder, catalogue, torch.arange(num_texts) % len(TEXTS))
    handle.remove()
    assert sizes == [2] * 5 + [4] * 17 + [2] + [7] * 42 + [6]


def test_little_is_padding(encoder: TextEncoder, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "_FEWEST", 8)
    shapes: list[tuple[int, ...]] = []
    handle = encoder.register_forward_pre_hook(lambda _module, given: shapes.append(tuple(given[0].shape)))
    positions = torch.arange(len(TEXTS))
    text_vectors(encoder, catalogue, positions)
    handle.remove()
    ids, counts = catalogue.tokens(positions)
    assert sum(rows for rows, _ in shapes) == len(TEXTS)
    assert sum(rows * width for rows, width in shapes) < 1.15 * int(counts.sum()) < 0.8 * ids.numel()


def test_words_are_left_out_where_that_is_asked_for(encoder: TextEncoder, catalogue: Catalogue) -> None:
    positions = torch.arange(len(TEXTS))
    whole = text_vectors(encoder, catalogue, positions)
    torch.manual_seed(0)
    fewer = text_vectors(encoder, catalogue, positions, 0.5)
    torch.manual_seed(0)
    assert torch.equal(fewer, text_vectors(encoder, catalogue, positions, 0.5))
    assert float((whole - fewer).detach().abs().max()) > 1e-3
    assert not fewer[-1].any()
