"""Every loss equals its formula written with loops, in value and gradient; what is excluded plays no part."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import Tensor

from recsys_spark.config.losses import LossName, LossSettings, Similarity
from recsys_spark.encoder.losses import (
    LOSSES,
    WHOLE_BATCH,
    Comparison,
    Relations,
    chosen_loss,
    in_chunks,
    nt_xent,
    symmetric_info_nce,
)
from recsys_spark.errors import TrainingError

TAU, MARGIN, GAMMA, SHARE = 0.3, 0.25, 0.7, 0.4
SETTINGS = LossSettings(margin=MARGIN, uniformity_weight=GAMMA, teacher_share=SHARE)
B, C, D = 6, 9, 4


def unit(rows: int, seed: int) -> Tensor:
    vectors = torch.randn(rows, D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return (vectors / vectors.norm(dim=1, keepdim=True)).requires_grad_()


def comparison(similarity: Similarity = "dot", seed: int = 0) -> Comparison:
    """Masks, further positives, draws (one candidate was never drawn), a teacher; the first anchor has no negative left."""
    rng = torch.Generator().manual_seed(seed)
    mask = torch.rand(B, C, generator=rng) < 0.25
    mask[0] = True
    return Comparison(
        unit(B, seed + 1),
        unit(C, seed + 2),
        torch.randint(C, (B,), generator=rng),
        torch.tensor(TAU, dtype=torch.float64, requires_grad=True),
        similarity,
        mask,
        positives=(torch.rand(B, C, generator=rng) < 0.2) & ~mask,
        draws=torch.tensor([1.0, 2, 1, 3, 0, 1, 1, 2, 1], dtype=torch.float64),
        log_expected=torch.linspace(-2.0, 0.5, C, dtype=torch.float64),
        teacher=torch.randn(B, C, dtype=torch.float64, generator=rng),
    )


def similarity_of(kind: Similarity, a: Tensor, c: Tensor) -> Tensor:
    if kind == "euclidean":
        return -(a - c).norm()
    return a @ c / (a.norm() * c.norm()) if kind == "cosine" else a @ c


def negative_entropy_sigma(x: Tensor) -> Tensor:
    return -torch.log(1 / (1 + torch.exp(-x)))


class Row:
    """One anchor: its scores as a list, who is what."""

    def __init__(self, c: Comparison, b: int) -> None:
        self.c, self.b, self.t = c, b, int(c.target_idx[b])
        self.s = [similarity_of(c.similarity, c.anchors[b], v) for v in c.candidates]
        self.l = [s / c.temperature for s in self.s]
        also = set() if c.positives is None else set(c.positives[b].nonzero().flatten().tolist())
        self.positives = sorted({self.t, *also})
        excluded = set() if c.mask is None else set(c.mask[b].nonzero().flatten().tolist())
        drawn = set(range(len(self.s))) if c.draws is None else set((c.draws > 0).nonzero().flatten().tolist())
        self.negatives = sorted(drawn - excluded - set(self.positives))
        self.drawn = sorted((drawn - excluded) | {self.t})

    def mean(self, terms: list[Tensor]) -> Tensor:
        if not terms:
            return self.s[0] * 0.0
        weights = [1.0 if self.c.draws is None else float(self.c.draws[n]) for n in self.negatives]
        return sum(w * t for w, t in zip(weights, terms, strict=True)) / sum(weights)


def plain_softmax(r: Row) -> Tensor:
    return -r.l[r.t] + torch.log(sum(torch.exp(r.l[c]) for c in r.drawn))


def plain_sampled(r: Row) -> Tensor:
    others = [r.c.draws[n] * torch.exp(r.l[n]) / torch.exp(r.c.log_expected[n]) for n in r.negatives]
    return -torch.log(torch.exp(r.l[r.t]) / (torch.exp(r.l[r.t]) + sum(others)))


def plain_supcon(r: Row) -> Tensor:
    total = sum(torch.exp(r.l[c]) for c in {*r.positives, *r.negatives})
    return -sum(torch.log(torch.exp(r.l[p]) / total) for p in r.positives) / len(r.positives)


def plain_nce(r: Row) -> Tensor:
    found = negative_entropy_sigma(r.l[r.t] - r.c.log_expected[r.t])
    for n in r.negatives:
        data = 1 / (1 + torch.exp(-(r.l[n] - r.c.log_expected[n])))
        found = found - r.c.draws[n] * torch.log(1 - data)
    return found


def plain_bpr(r: Row) -> Tensor:
    return r.mean([negative_entropy_sigma(r.l[r.t] - r.l[n]) for n in r.negatives])


def plain_hard(r: Row) -> Tensor:
    if not r.negatives:
        return r.s[0] * 0.0
    return (MARGIN + max(r.s[n] for n in r.negatives) - min(r.s[p] for p in r.positives)).clamp(min=0)


def plain_semi_hard(r: Row) -> Tensor:
    if not r.negatives:
        return r.s[0] * 0.0
    below = [r.s[n] for n in r.negatives if r.s[n] < r.s[r.t]]
    chosen = max(below) if below else min(r.s[n] for n in r.negatives)
    return (MARGIN + chosen - r.s[r.t]).clamp(min=0)


def plain_margin(r: Row) -> Tensor:
    return r.mean([(MARGIN - r.s[r.t] + r.s[n]).clamp(min=0) for n in r.negatives])


def plain_cosine(r: Row) -> Tensor:
    cosines = [similarity_of("cosine", r.c.anchors[r.b], v) for v in r.c.candidates]
    return 1 - cosines[r.t] + r.mean([(cosines[n] - MARGIN).clamp(min=0) for n in r.negatives])


def plain_uniformity(x: Tensor) -> Tensor:
    pairs = [torch.exp(-2 * (x[i] - x[j]).square().sum()) for i in range(len(x)) for j in range(len(x)) if i != j]
    return torch.log(sum(pairs) / len(pairs))


def plain_direct_au(r: Row) -> Tensor:
    targets = r.c.candidates[sorted(set(r.c.target_idx.tolist()))]
    spread = plain_uniformity(r.c.anchors) + plain_uniformity(targets)
    return (r.c.anchors[r.b] - r.c.candidates[r.t]).square().sum() + GAMMA * spread / 2


def plain_distillation(r: Row) -> Tensor:
    kept = sorted({r.t, *r.negatives})
    total, opinion = sum(torch.exp(r.l[c]) for c in kept), sum(torch.exp(r.c.teacher[r.b, c]) for c in kept)
    soft = -sum(torch.exp(r.c.teacher[r.b, c]) / opinion * torch.log(torch.exp(r.l[c]) / total) for c in kept)
    return (1 - SHARE) * plain_softmax(r) + SHARE * soft


PLAIN = {
    "softmax": plain_softmax,
    "sampled_softmax": plain_sampled,
    "supcon": plain_supcon,
    "nce": plain_nce,
    "bpr": plain_bpr,
    "triplet_hard": plain_hard,
    "triplet_semi_hard": plain_semi_hard,
    "margin": plain_margin,
    "cosine": plain_cosine,
    "direct_au": plain_direct_au,
    "distillation": plain_distillation,
}


def gradients(value: Tensor, c: Comparison) -> list[Tensor]:
    leaves = (c.anchors, c.candidates, c.temperature)
    found = torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)
    return list(found)


def test_every_name_of_the_configuration_has_a_loss_and_a_formula() -> None:
    assert set(get_args(LossName)) == set(LOSSES) == set(PLAIN)


@pytest.mark.parametrize("similarity", get_args(Similarity))
@pytest.mark.parametrize("name", list(PLAIN))
def test_value_and_gradient_equal_the_plain_formula(name: LossName, similarity: Similarity) -> None:
    c = comparison(similarity)
    weights = torch.linspace(0.5, 2.0, B, dtype=torch.float64)
    expected = torch.stack([PLAIN[name](Row(c, b)) for b in range(B)])
    found = chosen_loss(name, SETTINGS)(c)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)
    for one, other in zip(gradients(found @ weights, c), gradients(expected @ weights, c), strict=True):
        assert torch.isfinite(one).all()
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", sorted(set(PLAIN) - WHOLE_BATCH))
def test_in_chunks_value_gradient_and_counts_are_the_same(name: LossName) -> None:
    c = comparison()
    loss = chosen_loss(name, SETTINGS)
    whole = loss(c)

    def relate(rows: slice) -> Relations:
        return Relations(c.mask[rows], c.positives[rows], c.teacher[rows], c.mask[rows].sum()[None])

    found, masked = in_chunks(loss, replace(c, mask=None, positives=None, teacher=None), 4, relate)
    torch.testing.assert_close(found, whole, rtol=1e-12, atol=1e-12)
    assert masked is not None
    assert masked.tolist() == [int(c.mask.sum())]
    for one, other in zip(gradients(found.sum(), c), gradients(whole.sum(), c), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", sorted(set(PLAIN) - {"direct_au"}))
def test_an_excluded_candidate_plays_no_part(name: LossName) -> None:
    """Wherever an excluded candidate lies, loss and gradients of the others stay as they are; its own gradient is 0."""
    c = replace(comparison(), positives=None)
    excluded = next(i for i in range(C) if i not in c.target_idx.tolist())
    mask = c.mask.clone()
    mask[:, excluded] = True
    moved = c.candidates.detach().clone()
    moved[excluded] = -moved[excluded]
    values = []
    for candidates in (c.candidates, moved.requires_grad_()):
        some = replace(c, mask=mask, candidates=candidates)
        values.append(chosen_loss(name, SETTINGS)(some))
        assert gradients(values[-1].sum(), some)[1][excluded].abs().sum() == 0
    torch.testing.assert_close(values[0], values[1])


@pytest.mark.parametrize("name", list(PLAIN))
def test_turning_all_vectors_or_changing_the_order_of_candidates_changes_nothing(name: LossName) -> None:
    c = comparison()
    turn = torch.linalg.qr(torch.randn(D, D, dtype=torch.float64, generator=torch.Generator().manual_seed(9))).Q
    order = torch.tensor([3, 0, 8, 1, 2, 7, 4, 6, 5])
    shuffled = replace(
        c,
        anchors=c.anchors @ turn,
        candidates=(c.candidates @ turn)[order],
        target_idx=torch.argsort(order)[c.target_idx],
        mask=c.mask[:, order],
        positives=c.positives[:, order],
        draws=c.draws[order],
        log_expected=c.log_expected[order],
        teacher=c.teacher[:, order],
    )
    loss = chosen_loss(name, SETTINGS)
    torch.testing.assert_close(loss(shuffled), loss(c), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", list(PLAIN))
def test_matryoshka_over_the_whole_length_is_the_loss_itself(name: LossName) -> None:
    c = comparison()
    inner, whole = chosen_loss(name, SETTINGS)(c), chosen_loss(name, SETTINGS.model_copy(update={"matryoshka_dims": [D]}))(c)
    torch.testing.assert_close(whole, inner, rtol=1e-10, atol=1e-12)


def test_matryoshka_is_the_weighted_mean_over_unit_prefixes() -> None:
    c = comparison()
    nested = LossSettings(matryoshka_dims=[2, 4], matryoshka_weights=[3.0, 1.0])
    first = c.anchors[:, :2] / c.anchors[:, :2].norm(dim=1, keepdim=True)
    second = c.candidates[:, :2] / c.candidates[:, :2].norm(dim=1, keepdim=True)
    short = chosen_loss("softmax", SETTINGS)(replace(c, anchors=first, candidates=second))
    expected = (3 * short + chosen_loss("softmax", SETTINGS)(c)) / 4
    torch.testing.assert_close(chosen_loss("softmax", nested)(c), expected)
    for wrong in ({"matryoshka_dims": [2, 2]}, {"matryoshka_dims": [0]}, {"matryoshka_dims": [2], "matryoshka_weights": [1, 2]}):
        with pytest.raises(ValueError, match="matryoshka"):
            LossSettings(**wrong)


def test_supcon_with_one_positive_and_sampled_softmax_without_draws_are_softmax() -> None:
    c = replace(comparison(), positives=None, draws=None, log_expected=None)
    expected = chosen_loss("softmax", SETTINGS)(c)
    for name in ("supcon", "sampled_softmax"):
        torch.testing.assert_close(chosen_loss(name, SETTINGS)(c), expected)
    torch.testing.assert_close(chosen_loss("distillation", SETTINGS.model_copy(update={"teacher_share": 0.0}))(c), expected)


def test_sampled_softmax_approaches_the_full_softmax_as_draws_grow() -> None:
    """With logQ the error falls as draws grow, whatever they are drawn by; without it it stays."""
    torch.manual_seed(0)
    anchors, candidates = torch.randn(8, 3, dtype=torch.float64), torch.randn(300, 3, dtype=torch.float64)
    chance = torch.rand(300, dtype=torch.float64) ** 3 + 0.05
    chance = chance / chance.sum()
    full = Comparison(anchors, candidates, torch.arange(8), 1.0)
    expected = chosen_loss("softmax", SETTINGS)(full)
    errors, uncorrected = [], []
    for draws in (30, 3_000, 300_000):
        counts = torch.bincount(torch.multinomial(chance, draws, replacement=True), minlength=300).double()
        drawn = replace(full, draws=counts, log_expected=(draws * chance).log())
        errors.append(float((chosen_loss("sampled_softmax", SETTINGS)(drawn) - expected).abs().mean()))
        plain = replace(drawn, log_expected=torch.full((300,), math.log(draws / 300), dtype=torch.float64))
        uncorrected.append(float((chosen_loss("sampled_softmax", SETTINGS)(plain) - expected).abs().mean()))
    assert errors[0] > 3 * errors[1] > 9 * errors[2]
    assert errors[2] < 0.02 < 0.1 < uncorrected[2]


def test_nce_finds_the_log_probabilities_that_made_the_data() -> None:
    """Free scores, trained on expected counts, end at log p: what NCE promises and softmax leaves open by a constant."""
    truth = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    noise = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    scores = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([scores], max_iter=100)

    def closure() -> Tensor:
        optimiser.zero_grad()
        one_hot, expected = torch.eye(4, dtype=torch.float64), 5 * noise
        c = Comparison(scores.expand(4, 4), one_hot, torch.arange(4), draws=expected, log_expected=expected.log())
        # noise that draws the target itself is no negative to the loss: its term is added by hand
        target = expected * torch.nn.functional.softplus(scores - expected.log())
        loss = ((chosen_loss("nce", SETTINGS)(c) + target) * truth).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    torch.testing.assert_close(scores.detach().exp(), truth, atol=1e-5, rtol=0)


def test_symmetric_losses_equal_their_formulas() -> None:
    left, right = unit(5, 1).detach(), unit(5, 2).detach()
    scores = left @ right.T / TAU
    both = [-(m[i, i] - torch.log(torch.exp(m[i]).sum())) for m in (scores, scores.T) for i in range(5)]
    assert symmetric_info_nce(left, right, TAU).item() == pytest.approx(float(sum(both)) / 10)
    views = torch.cat([left, right])
    among = views @ views.T / TAU
    found = []
    for i in range(10):
        others = [k for k in range(10) if k != i]
        found.append(-torch.log(torch.exp(among[i, (i + 5) % 10]) / torch.exp(among[i, others]).sum()))
    assert nt_xent(left, right, TAU).item() == pytest.approx(float(sum(found)) / 10)
    assert nt_xent(right, left, TAU).item() == pytest.approx(nt_xent(left, right, TAU).item())
    mask = torch.zeros(5, 5, dtype=torch.bool)
    mask[0, 1] = True
    kept = [torch.exp(scores[0, [0, 2, 3, 4]]).sum(), torch.exp(scores[[1, 2, 3, 4], 1]).sum()]
    masked = float(sum(both)) + float(torch.log(kept[0]) - torch.log(torch.exp(scores[0]).sum()))
    masked += float(torch.log(kept[1]) - torch.log(torch.exp(scores[:, 1]).sum()))
    assert symmetric_info_nce(left, right, TAU, mask).item() == pytest.approx(masked / 10)


def test_direct_au_of_all_ranks_and_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    c = comparison()
    more = replace(c, all_anchors=torch.cat([c.anchors, unit(3, 7)]), all_targets=unit(4, 8))
    loss = chosen_loss("direct_au", SETTINGS)
    spread = plain_uniformity(more.all_anchors) + plain_uniformity(more.all_targets)
    expected = (c.anchors - c.candidates[c.target_idx]).square().sum(1) + GAMMA * spread / 2
    torch.testing.assert_close(loss(more), expected)
    wanted = gradients(loss(more).sum(), c)
    monkeypatch.setattr("recsys_spark.encoder.losses.direct_au._ROWS_AT_ONCE", 2)
    for one, other in zip(gradients(loss(more).sum(), c), wanted, strict=True):
        torch.testing.assert_close(one, other)
    lonely = Comparison(c.anchors[:1], c.candidates, c.target_idx[:1])
    assert loss(lonely).item() == pytest.approx((c.anchors[0] - c.candidates[c.target_idx[0]]).square().sum().item())


def test_distillation_without_a_teacher_says_so() -> None:
    with pytest.raises(TrainingError, match="no teacher's scores"):
        chosen_loss("distillation", SETTINGS)(replace(comparison(), teacher=None))
