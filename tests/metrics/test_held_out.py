"""Probes on held-out folds: margins by hand, and two kinds of samples that are alike or not."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from support import raises

from regrain.metrics import held_out_margins, separability


def drawn(count: int = 120, distance: float = 2.0, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Three classes in four dimensions, and the folds."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.arange(count) % 3
    x = torch.randn(count, 4, generator=generator) + distance * torch.eye(4)[codes]
    return x, codes, torch.randint(4, (count,), generator=generator)


def test_margins_are_those_of_scikit_learns_classifier_of_the_other_folds() -> None:
    x, codes, folds = drawn()
    codes[::10] = -1
    found = held_out_margins(x, codes, folds)
    assert torch.equal(found.isnan(), codes < 0)
    scaled = (x - x.mean(dim=0)) / x.std(dim=0, correction=0) / math.sqrt(4)
    for fold in range(4):
        fitted, judged = (codes >= 0) & (folds != fold), (codes >= 0) & (folds == fold)
        model = LogisticRegression(C=10.0, tol=1e-8, max_iter=1000).fit(scaled[fitted].numpy(), codes[fitted].numpy())
        logits = torch.from_numpy(model.decision_function(scaled[judged].numpy())).float()
        own = codes[judged][:, None]
        expected = logits.gather(1, own)[:, 0] - logits.scatter(1, own, -torch.inf).amax(dim=1)
        torch.testing.assert_close(found[judged], expected, rtol=0, atol=0.05)


def test_a_class_that_no_other_fold_holds_is_the_hardest() -> None:
    x, codes, folds = drawn(60)
    codes[codes == 2] = torch.where(folds[codes == 2] == 0, 2, -1)
    found = held_out_margins(x, codes, folds)
    assert float(found[codes == 2].max()) < 0


def test_alike_and_unlike_samples() -> None:
    x, codes, folds = drawn(600, distance=0.0)
    by_chance = separability(x, codes == 0, folds)
    assert by_chance.low < 0.5 < by_chance.high
    apart = separability(x, x[:, 0] + 0.5 * x[:, 1] > 0.3, folds)
    assert apart.low > 0.9
    assert 0 <= apart.low <= apart.area <= apart.high <= 1


@pytest.mark.parametrize(
    ("codes", "code"), [([0, 0, 0, 0], "too_few"), ([-1, -1, -1, -1], "no_labels"), ([0, 1, 1], "wrong_shape")]
)
def test_nothing_to_tell_apart(codes: list[int], code: str) -> None:
    with raises(code):
        held_out_margins(torch.randn(4, 2), codes, [0, 1, 0, 1])
    with raises("wrong_shape"):
        held_out_margins(torch.randn(4), [0, 1, 0, 1], [0, 1, 0, 1])
