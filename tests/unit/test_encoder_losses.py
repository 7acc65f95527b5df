"""Losses equal the plain formula in value and gradient, and the mask excludes what it should."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recsys_spark.encoder.losses import full_softmax, info_nce, known_positive_mask
from recsys_spark.encoder.losses.comparison import Comparison
from recsys_spark.encoder.losses.softmax import softmax


def plain(anchors: Tensor, candidates: Tensor, target: Tensor, tau: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
    """The formula, one anchor at a time."""
    total = anchors.new_zeros(())
    for b in range(len(anchors)):
        scores = (candidates @ anchors[b]) / tau
        kept = [c for c in range(len(candidates)) if c == target[b] or not mask[b, c]]
        total = total - weights[b] * torch.log(torch.exp(scores[target[b]]) / torch.exp(scores[kept]).sum())
    return total / weights.sum()


def inputs(num_anchors: int = 7, num_candidates: int = 11) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(3)
    anchors = F.normalize(torch.randn(num_anchors, 5, dtype=torch.float64), dim=-1).requires_grad_()
    candidates = F.normalize(torch.randn(num_candidates, 5, dtype=torch.float64), dim=-1).requires_grad_()
    tau = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    target = torch.randint(num_candidates, (num_anchors,))
    mask = torch.rand(num_anchors, num_candidates) < 0.3
    weights = torch.rand(num_anchors, dtype=torch.float64) + 0.1
    return anchors, candidates, target, tau, mask, weights


@pytest.mark.parametrize("loss", [info_nce, full_softmax, lambda *args: full_softmax(*args, chunk_size=3)])
def test_value_and_gradients_equal_the_plain_formula(loss) -> None:
    anchors, candidates, target, tau, mask, weights = inputs()
    leaves = (anchors, candidates, tau)
    expected = plain(anchors, candidates, target, tau, mask, weights)
    wanted = torch.autograd.grad(expected, leaves)
    found = loss(anchors, candidates, target, tau, mask, weights)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    for one, other in zip(torch.autograd.grad(found, leaves), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_equal_scores_give_chance_and_a_masked_candidate_has_no_gradient() -> None:
    anchors, candidates = torch.ones(2, 4), torch.ones(5, 4)
    assert info_nce(anchors, candidates, torch.tensor([0, 3]), 0.1).item() == pytest.approx(math.log(5))
    mask = torch.tensor([[False, True, False, False, False], [True, True, True, False, True]])
    leaf = candidates.clone().requires_grad_()
    loss = info_nce(anchors, leaf, torch.tensor([0, 3]), 0.1, mask)
    assert loss.item() == pytest.approx((math.log(4) + 0.0) / 2)
    loss.backward()
    assert leaf.grad is not None
    assert leaf.grad[1].abs().sum() == 0
    assert leaf.grad[2].abs().sum() > 0


def test_a_masked_target_still_counts() -> None:
    loss = info_nce(torch.ones(1, 2), torch.ones(3, 2), torch.tensor([1]), 0.5, torch.ones(1, 3, dtype=torch.bool))
    assert loss.item() == 0.0


def test_weights_of_all_ranks_together_give_the_mean_over_all() -> None:
    anchors, candidates, target, tau, mask, weights = inputs()
    whole = info_nce(anchors, candidates, target, tau, mask, weights)
    parts = [
        info_nce(anchors[r], candidates, target[r], tau, mask[r], weights[r], weights.sum()) for r in (slice(0, 3), slice(3, 7))
    ]
    assert sum(p.item() for p in parts) == pytest.approx(whole.item(), rel=1e-12)


def test_no_weight_is_no_loss_and_no_nan() -> None:
    anchors, candidates, target, tau, mask, _ = inputs()
    loss = info_nce(anchors, candidates, target, tau, mask, torch.zeros(7, dtype=torch.float64))
    assert loss.item() == 0.0
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(loss, (anchors, candidates, tau)))
    empty = full_softmax(anchors[:0], candidates, target[:0], tau)
    assert empty.item() == 0.0


def test_mask_excludes_duplicates_the_anchor_and_known_positives_but_never_the_target() -> None:
    candidates = torch.tensor([5, 6, 5, 7, 8, 9, -1])
    mask = known_positive_mask(torch.tensor([7, -1]), candidates, torch.tensor([0, 4]), torch.tensor([[9, -1], [6, 8]]))
    assert mask.tolist() == [
        [False, False, True, True, False, True, False],  # 5 again, the anchor 7, known 9
        [False, True, False, False, False, False, False],  # known 6; its target 8 stays
    ]
    assert known_positive_mask(torch.tensor([-1]), candidates, torch.tensor([1])).sum() == 0


def test_the_gradient_made_in_place_is_cross_entropys_and_going_back_twice_is_an_error() -> None:
    torch.manual_seed(0)
    anchors, candidates = torch.randn(7, 4, dtype=torch.float64, requires_grad=True), torch.randn(9, 4, dtype=torch.float64)
    target, slope = torch.randint(9, (7,)), torch.rand(7, dtype=torch.float64)
    mask = torch.rand(7, 9) < 0.3
    losses = softmax(Comparison(anchors, candidates, target, 0.3, mask=mask))
    excluded = mask.scatter(1, target[:, None], False)
    plain = F.cross_entropy((anchors @ candidates.T / 0.3).masked_fill(excluded, float("-inf")), target, reduction="none")
    torch.testing.assert_close(losses, plain)
    (expected,) = torch.autograd.grad(plain, anchors, slope)
    (found,) = torch.autograd.grad(losses, anchors, slope, retain_graph=True)
    torch.testing.assert_close(found, expected)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(losses, anchors, slope)
