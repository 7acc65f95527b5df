"""Adapting the text model: what is hidden and dropped, that it learns, and that it is done once; and LoRA."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from recsys_spark.config.learning import EncoderSettings
from recsys_spark.encoder import adapt as adapting
from recsys_spark.encoder.adapt import MaskedWords, TwoViews, adapt, adapted_model, dropped_words
from recsys_spark.encoder.text_encoder import TextEncoder

TEXTS = [
    f"{a} {b} {n}" for n, (a, b) in enumerate((a, b) for a in ("garden", "kitchen", "music") for b in ("rake", "pan", "drum"))
]


def settings(how: str, **options: object) -> EncoderSettings:
    base = {"text_model": "tiny", "dtype": "float32", "max_tokens": 12, "adapt": how, "adapt_batch_size": 4}
    return EncoderSettings(**base | {"adapt_steps": 40, "adapt_learning_rate": 1e-3} | options)


def tiny() -> TextEncoder:
    return TextEncoder.load("tiny", 12, "float32")


def test_dropped_words_leave_the_others_in_order_and_the_special_ones_in_place() -> None:
    torch.manual_seed(0)
    ids, counts = torch.arange(1, 9).expand(2_000, 8), torch.full((2_000,), 6)
    packed, left = dropped_words(ids.masked_fill(torch.arange(8) >= 6, 0), counts, 0.3)
    for row, count in zip(packed[:200].tolist(), left[:200].tolist(), strict=True):
        kept = row[:count]
        assert kept == sorted(set(kept))
        assert (kept[0], kept[-1]) == (1, 6)
        assert not any(row[count:])
    assert (6 - left).double().mean().item() == pytest.approx(0.3 * 4, abs=0.08)
    same, whole = dropped_words(ids, counts, 0.0)
    assert torch.equal(same[:, :6], ids[:, :6])
    assert torch.equal(whole, counts)


def test_hidden_words_are_15_percent_and_asked_for_as_they_were() -> None:
    torch.manual_seed(0)
    encoder = tiny()
    task = MaskedWords(encoder)
    ids, counts = torch.randint(10, 60, (3_000, 12)), torch.full((3_000,), 10)
    hidden, labels = task.hide(ids, counts)
    asked = labels != -100
    assert not asked[:, [0, 9, 10, 11]].any(), "special tokens and padding"
    assert asked[:, 1:9].double().mean().item() == pytest.approx(0.15, abs=0.01)
    assert torch.equal(labels[asked], ids[asked])
    assert torch.equal(hidden[~asked], ids[~asked])
    assert (hidden[asked] == encoder.mask_token).double().mean().item() == pytest.approx(0.8, abs=0.03)
    assert (hidden[asked] == ids[asked]).double().mean().item() == pytest.approx(0.1, abs=0.02)


def test_the_masked_loss_is_the_cross_entropy_of_the_hidden_words_and_0_without_any() -> None:
    task, (ids, counts) = MaskedWords(tiny()).eval(), (torch.from_numpy(part).long() for part in tiny().tokenise(TEXTS[:3]))
    torch.manual_seed(1)
    hidden, labels = task.hide(ids, counts)
    rows, places = (labels != -100).nonzero().unbind(1)
    assert len(rows) > 0
    with torch.no_grad():
        states = task.encoder.states(hidden, counts)
        scores = states[rows, places] @ task.encoder.model.embeddings.word_embeddings.weight.T
        expected = -torch.log_softmax(scores, 1).gather(1, labels[rows, places][:, None]).mean()
        torch.manual_seed(1)
        torch.testing.assert_close(task(ids, counts), expected)
    assert task(ids[:, :2], torch.full((3,), 2)).item() == 0.0


def test_a_batch_in_parts_has_the_loss_and_the_gradient_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    task = MaskedWords(tiny()).eval()
    ids, counts = (torch.from_numpy(part).long() for part in task.encoder.tokenise(TEXTS))
    found = []
    for at_once in (1 << 20, 2 * ids.shape[1], 1):
        monkeypatch.setattr(adapting, "_TOKENS_AT_ONCE", at_once)
        task.zero_grad()
        torch.manual_seed(1)
        parts = [part for part in task.parts(ids, counts) if part.backward() is None]
        found.append((len(parts), sum(part.item() for part in parts), [weight.grad.clone() for weight in task.parameters()]))
    assert [number for number, _, _ in found] == [1, 4, 9]
    for _, loss, gradients in found[1:]:
        assert loss == pytest.approx(found[0][1], rel=1e-6)
        for mine, whole in zip(gradients, found[0][2], strict=True):
            torch.testing.assert_close(mine, whole, rtol=1e-4, atol=1e-6)


def test_two_views_encoded_again_some_texts_at_a_time_have_the_gradient_of_keeping_all(monkeypatch: pytest.MonkeyPatch) -> None:
    task = TwoViews(tiny(), 0.2).train()
    ids, counts = (torch.from_numpy(part).long() for part in task.encoder.tokenise(TEXTS))
    monkeypatch.setattr(adapting, "_TOKENS_AT_ONCE", 2 * ids.shape[1])
    found = []
    for again in (True, False):
        task.zero_grad()
        torch.manual_seed(1)
        with monkeypatch.context() as patched:
            if not again:
                patched.setattr(adapting, "checkpoint", lambda encode, *inputs, **_: encode(*inputs))
            loss = task(ids, counts)
            torch.rand(3)  # what is drawn in between moves no drop-out
            loss.backward()
        found.append((loss.item(), [weight.grad.clone() for weight in task.parameters() if weight.grad is not None]))
    assert found[0][0] == found[1][0]
    assert any(gradient.abs().max() > 1e-3 for gradient in found[0][1])
    for mine, kept in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(mine, kept, rtol=1e-4, atol=1e-6)


def test_without_any_drop_the_two_views_are_the_same_vector() -> None:
    encoder = tiny()
    ids, counts = (torch.from_numpy(part).long() for part in encoder.tokenise(TEXTS[:5]))
    vectors = torch.tensor(encoder.encode(TEXTS[:5]))
    expected = -torch.log_softmax(vectors @ vectors.T / 0.05, 1).diagonal().mean()
    with torch.no_grad():
        torch.testing.assert_close(TwoViews(encoder, 0.0).eval()(ids, counts), expected)


@pytest.mark.parametrize("how", ["mlm", "simcse"])
def test_adapting_learns_and_is_the_same_for_the_same_seed(how: str) -> None:
    state = torch.random.get_rng_state()
    one, two, other = tiny(), tiny(), tiny()
    asked = settings(how, adapt_steps=60, adapt_batch_size=9, adapt_word_drop=0.5)
    losses = adapt(one, TEXTS, asked, seed=3)
    assert len(losses) == 60
    assert np.mean(losses[-20:]) < 0.8 * np.mean(losses[:10])
    assert losses == adapt(two, TEXTS, asked, seed=3)
    np.testing.assert_array_equal(one.encode(TEXTS), two.encode(TEXTS))
    assert losses != adapt(other, TEXTS, asked, seed=4)
    assert not np.allclose(one.encode(TEXTS), tiny().encode(TEXTS), atol=1e-3)
    assert torch.equal(state, torch.random.get_rng_state()), "the caller's random numbers are left alone"


def test_a_model_is_adapted_once_for_the_same_texts_and_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = settings("simcse", adapt_steps=3)
    found = adapted_model(wanted, [*TEXTS, "", TEXTS[0]], 1, tmp_path)
    assert found.adapt == "none"
    assert Path(found.text_model).parent == tmp_path
    again = TextEncoder.load(found.text_model, 12, "float32").encode(TEXTS)
    direct = tiny()
    adapt(direct, sorted(TEXTS), wanted, 1)
    np.testing.assert_allclose(again, direct.encode(TEXTS), atol=1e-6)

    def fail(*_: object) -> list[float]:
        raise AssertionError("adapted again")

    with monkeypatch.context() as patched:
        patched.setattr(adapting, "adapt", fail)
        assert adapted_model(wanted, TEXTS, 1, tmp_path) == found
        assert adapted_model(settings("none"), TEXTS, 1, tmp_path).text_model == "tiny"
    for texts, seed, how in ((TEXTS[1:], 1, wanted), (TEXTS, 2, wanted), (TEXTS, 1, settings("mlm", adapt_steps=3))):
        assert adapted_model(how, texts, seed, tmp_path).text_model != found.text_model
    assert not list(tmp_path.glob("*.partial"))


def test_lora_learns_small_matrices_and_is_saved_as_plain_weights(tmp_path: Path) -> None:
    encoder, before = tiny(), tiny().encode(TEXTS)
    learning = encoder.train_only("lora", rank=2, alpha=4.0)
    np.testing.assert_array_equal(encoder.encode(TEXTS), before)
    assert all(min(weight.shape) == 2 for weight in learning)
    assert len(learning) == 2 * 2 * 6  # A and B of six linear layers in each of two blocks
    frozen = {name: weight.clone() for name, weight in encoder.model.named_parameters() if not weight.requires_grad}
    optimiser = torch.optim.SGD(learning, 1.0)
    ids, counts = encoder.tokenise(TEXTS)
    for _ in range(2):
        encoder(torch.tensor(ids), torch.tensor(counts))[:, 0].sum().backward()
        optimiser.step()
    assert all(torch.equal(weight, frozen[name]) for name, weight in encoder.model.named_parameters() if name in frozen)
    after = encoder.encode(TEXTS)
    assert not np.allclose(after, before, atol=1e-3)
    encoder.save(tmp_path / "text")
    loaded = TextEncoder.load(tmp_path / "text", 12, "float32")
    np.testing.assert_allclose(loaded.encode(TEXTS), after, atol=1e-6)
    assert {name for name, _ in loaded.model.named_parameters()} == {name for name, _ in tiny().model.named_parameters()}
    np.testing.assert_array_equal(encoder.encode(TEXTS), after)
