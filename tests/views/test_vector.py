"""VectorViews: noise of the stated size, features dropped at the stated rate, missing values kept."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from support import raises

from regrain.views import VectorPreset, VectorViews


def vectors(count: int = 2000, features: int = 6) -> torch.Tensor:
    return torch.randn(count, features, generator=torch.Generator().manual_seed(0)) * 3 + 10


def test_plain_is_the_record() -> None:
    raw, views = vectors(), VectorViews(["plain", "weak"])
    assert torch.equal(views(raw, torch.arange(2000), 0)[0], raw)
    assert torch.equal(views.plain(raw.double()), raw.double().float())


def test_noise_has_the_scale_of_the_feature() -> None:
    raw, std = vectors(), torch.tensor([0.0, 1, 2, 3, 4, 5])
    (view,) = VectorViews([VectorPreset(noise=0.1)], std=std)(raw, torch.arange(2000), 0)
    noise = view - raw
    assert torch.equal(view[:, 0], raw[:, 0])
    torch.testing.assert_close(noise.std(dim=0), 0.1 * std, rtol=0.1, atol=1e-6)
    assert stats.kstest((noise[:, 1:] / (0.1 * std[1:])).numpy().ravel(), "norm").pvalue > 1e-3


@pytest.mark.parametrize("mean", [None, torch.arange(6.0)])
def test_dropped_features_take_their_mean(mean: torch.Tensor | None) -> None:
    raw = vectors()
    (view,) = VectorViews([VectorPreset(drop_probability=0.15)], mean=mean)(raw, torch.arange(2000), 0)
    changed = view != raw
    assert float(changed.float().mean()) == pytest.approx(0.15, abs=0.02)
    expected = (torch.zeros(6) if mean is None else mean).expand(2000, 6)
    assert torch.equal(view[changed], expected[changed])


def test_missing_values_stay_missing() -> None:
    raw = vectors()
    raw[::3, 2] = float("nan")
    (view,) = VectorViews(["strong"])(raw, torch.arange(2000), 0)
    assert torch.equal(view.isnan(), raw.isnan())


def test_a_view_does_not_depend_on_the_batch() -> None:
    raw, ids, views = vectors(40), torch.arange(40) * 13, VectorViews(["strong", "strong"])
    first, second = views(raw, ids, 2)
    order = torch.randperm(40)
    assert torch.equal(views(raw[order], ids[order], 2)[0], first[order])
    torch.testing.assert_close(views(raw[5:6], ids[5:6], 2)[1][0], second[5])
    assert not torch.equal(first, second)
    assert not torch.equal(views(raw, ids, 3)[0], first)
    assert not torch.equal(VectorViews(["strong"], seed=1)(raw, ids, 2)[0], first)


def test_mistakes_are_explained() -> None:
    with raises("not_finite"):
        VectorViews(["weak"], std=torch.tensor([1.0, -1.0]))
    with raises("wrong_shape"):
        VectorViews(["weak"], std=torch.ones(2)).plain(vectors())
    with raises("wrong_shape"):
        VectorViews(["weak"]).plain(torch.zeros(3))
    with raises("unknown_option"):
        VectorViews([{"preset": "weak", "nois": 1.0}])
    with raises("out_of_range"):
        VectorViews([{"noise": -1.0}])
