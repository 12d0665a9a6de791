"""SeriesViews: window, scale, noise and mask against slow per-sample forms; missing values kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from support import raises

from regrain.views import SeriesPreset, SeriesViews
from regrain.views.series import _window


def series(count: int = 30, steps: int = 40, channels: int = 3) -> torch.Tensor:
    return torch.randn(count, steps, channels, generator=torch.Generator().manual_seed(0))


def test_plain_is_the_series_and_the_rest_is_passed_on() -> None:
    raw, static, ids = series(), torch.arange(60.0).view(30, 2), torch.arange(30)
    views = SeriesViews(["plain", "strong"])
    assert torch.equal(views(raw, ids, 0)[0], raw)
    plain, strong = views({"series": raw, "static": static}, ids, 0)
    assert torch.equal(plain["series"], raw)
    assert torch.equal(plain["static"], static)
    (weak,) = SeriesViews(["weak"])({"series": raw, "static": static}, ids, 0)
    assert torch.equal(weak["static"], static)
    assert torch.equal(strong["series"], views(raw, ids, 0)[1])
    assert torch.equal(views.plain({"series": raw, "static": static})["series"], raw)


@pytest.mark.parametrize("steps", [2, 5, 40])
def test_the_window_is_numpys_interpolation(steps: int) -> None:
    raw = series(steps=steps)
    start, share = torch.linspace(0, 0.4, 30), torch.linspace(1.0, 0.5, 30)
    ours = _window(raw, start, share)
    for row in range(30):
        places = (float(start[row]) + float(share[row]) * np.linspace(0, 1, steps)) * (steps - 1)
        for channel in range(3):
            expected = np.interp(places, np.arange(steps), raw[row, :, channel].numpy())
            np.testing.assert_allclose(ours[row, :, channel].numpy(), expected, atol=1e-4)


def test_a_window_may_be_a_single_step() -> None:
    raw = series(steps=1)
    (view,) = SeriesViews([SeriesPreset(crop=(0.5, 0.9))])(raw, torch.arange(30), 0)
    assert torch.equal(view, raw)


def test_missing_steps_stay_missing() -> None:
    raw = series()
    raw[:, 10:13, 1] = float("nan")
    for preset in ("weak", {"preset": "strong", "crop": None}):
        (view,) = SeriesViews([preset])(raw, torch.arange(30), 0)
        assert torch.equal(view.isnan(), raw.isnan())
    (cropped,) = SeriesViews([SeriesPreset(crop=(0.9, 1.0))])(raw, torch.arange(30), 0)
    assert not cropped[:, :, [0, 2]].isnan().any()
    gaps = cropped[:, :, 1].isnan().sum(dim=1)
    assert gaps.min() >= 2  # three steps, stretched by up to a tenth
    assert gaps.max() <= 4
    assert torch.equal(_window(raw, torch.zeros(30), torch.ones(30)).isnan(), raw.isnan())


def test_scale_is_one_factor_per_channel() -> None:
    raw = series(500)
    (view,) = SeriesViews([SeriesPreset(scale=0.2)])(raw, torch.arange(500), 0)
    factors = view / raw
    torch.testing.assert_close(factors, factors[:, :1].expand_as(factors))
    assert stats.kstest(factors[:, 0].numpy().ravel(), stats.uniform(0.8, 0.4).cdf).pvalue > 1e-3


def test_noise_is_normal() -> None:
    raw = series(100)
    (view,) = SeriesViews([SeriesPreset(noise=0.5)])(raw, torch.arange(100), 0)
    assert stats.kstest(((view - raw) / 0.5).numpy().ravel(), "norm").pvalue > 1e-3


def test_the_mask_is_one_stretch_of_time() -> None:
    raw = series(2000)
    (view,) = SeriesViews([SeriesPreset(mask=(0.1, 0.3), mask_probability=0.5)])(raw, torch.arange(2000), 0)
    masked = view != raw
    assert torch.equal(masked, masked[:, :, :1].expand_as(masked))
    assert (view[masked] == 0).all()
    lengths = masked[:, :, 0].sum(dim=1)
    assert float((lengths > 0).float().mean()) == pytest.approx(0.5, abs=0.04)
    assert sorted(set(lengths.tolist())) == [0, *range(4, 13)]
    starts = (masked[:, 1:, 0] & ~masked[:, :-1, 0]).sum(dim=1) + masked[:, 0, 0]
    assert starts.max() == 1
    covered = masked[lengths > 0, :, 0].float().mean(dim=0)
    assert covered.min() > 0.02


def test_a_view_does_not_depend_on_the_batch() -> None:
    raw, ids, views = series(), torch.arange(30) * 7, SeriesViews(["strong", "weak"])
    first, second = views(raw, ids, 1)
    order = torch.randperm(30)
    torch.testing.assert_close(views(raw[order], ids[order], 1)[0], first[order])
    torch.testing.assert_close(views(raw[4:5], ids[4:5], 1)[1][0], second[4])
    assert not torch.equal(views(raw, ids, 2)[0], first)
    assert not torch.equal(SeriesViews(["strong"], seed=1)(raw, ids, 1)[0], first)


def test_mistakes_are_explained() -> None:
    with raises("wrong_shape"):
        SeriesViews(["plain"]).plain({"static": torch.zeros(1, 2)})
    with raises("wrong_shape"):
        SeriesViews(["plain"]).plain(torch.zeros(3, 2))
    with raises("out_of_range"):
        SeriesViews([{"crop": [0.9, 0.1]}])
    with raises("unknown_name"):
        SeriesViews(["stronger"])


def test_static_features_get_noise_and_means_in_their_own_scale() -> None:
    count = 2000
    static = torch.full((count, 2), 50.0)
    static[:, 1] = float("nan")
    raw = {"series": series(count, steps=3), "static": static}
    scale = {"static_mean": torch.tensor([40.0, 7.0]), "static_std": torch.tensor([10.0, 1.0])}
    (noisy,) = SeriesViews([SeriesPreset(static_noise=0.5)], **scale)(raw, torch.arange(count), 0)
    assert torch.equal(noisy["series"], raw["series"])
    assert stats.kstest(((noisy["static"][:, 0] - 50) / 5).numpy(), "norm").pvalue > 1e-3
    (dropped,) = SeriesViews([SeriesPreset(static_drop_probability=0.3)], **scale)(raw, torch.arange(count), 0)
    assert set(dropped["static"][:, 0].tolist()) == {40.0, 50.0}
    assert float((dropped["static"][:, 0] == 40).float().mean()) == pytest.approx(0.3, abs=0.04)
    for view in (noisy, dropped):
        assert view["static"][:, 1].isnan().all()  # what is missing stays missing
    none = {"series": raw["series"], "static": torch.zeros(count, 0)}
    assert SeriesViews(["strong"])(none, torch.arange(count), 0)[0]["static"].shape == (count, 0)


def test_views_work_in_the_scale_of_the_channels() -> None:
    raw, ids = series(), torch.arange(30)
    mean, std = torch.tensor([100.0, -3.0, 0.0]), torch.tensor([20.0, 0.1, 1.0])
    (expected,) = SeriesViews(["strong"], seed=4)(raw, ids, 2)
    (view,) = SeriesViews(["strong"], seed=4, mean=mean, std=std)(mean + std * raw, ids, 2)
    torch.testing.assert_close((view - mean) / std, expected, atol=1e-3, rtol=1e-3)
    with raises("wrong_shape"):
        SeriesViews(["plain"], mean=torch.zeros(2))(raw, ids, 0)
    with raises("wrong_shape"):
        SeriesViews(["plain"], static_mean=torch.zeros(2))(raw, ids, 0)
    with raises("not_finite"):
        SeriesViews(["plain"], std=torch.tensor([1.0, -1.0, 1.0]))
