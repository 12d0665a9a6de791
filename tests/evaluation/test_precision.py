"""The precision of embeddings, predictions and features: the run's own, or the one asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

import regrain
from regrain.data.cache import cache_folder
from regrain.encoders import build_encoder
from regrain.methods import METHODS
from regrain.training.device import scan_dtype
from regrain.training.scan import scan_views
from regrain.views import ImageViews


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> regrain.Run:
    return regrain.fit(
        "sup-ce",
        "digits",
        encoder="conv4",
        out=tmp_path_factory.mktemp("precision") / "run",
        settings=["epochs=3", "precision=bf16"],
        limit_per_class=40,
        progress=False,
    )


def test_a_run_computes_as_it_was_trained_unless_told(run: regrain.Run) -> None:
    assert run.model.precision == "bf16"
    own = run.embed()
    half = regrain.Run.open(run.path, precision="bf16").embed()
    exact = regrain.Run.open(run.path, precision="float32")
    whole = exact.embed()
    assert torch.equal(own, half)
    assert not torch.equal(own, whole)
    assert own.dtype == whole.dtype == torch.float32
    assert float(functional.cosine_similarity(own, whole).min()) > 0.999
    test = exact.splits()["test"]
    with torch.inference_mode():
        by_hand = exact.model.method.embed(exact.model.prepare(test.samples.take(torch.arange(len(test)))))
    torch.testing.assert_close(whole, by_hand)
    level = run.labels.levels[-1]
    assert np.allclose(run.predict_proba(test, level), exact.predict_proba(test, level), atol=0.05)


def test_frozen_features_are_kept_in_the_type_they_are_computed_in(own_cache: None, tmp_path: Path) -> None:
    sizes = {}
    for precision, dtype in (("bf16", torch.bfloat16), ("float32", torch.float32)):
        fitted = regrain.fit(
            "sup-ce",
            "digits",
            encoder="conv4",
            frozen=True,
            out=tmp_path / precision,
            settings=["epochs=1", f"precision={precision}"],
            limit_per_class=5,
            progress=False,
        )
        assert scan_dtype(fitted.model.precision, torch.device("cpu")) == dtype
        before = set(cache_folder().glob("*.npy"))
        fitted.model.featurised(fitted.splits()["test"])
        (made,) = set(cache_folder().glob("*.npy")) - before
        sizes[precision] = made.stat().st_size
        fitted.model.featurised(fitted.splits()["test"])
        assert set(cache_folder().glob("*.npy")) == before | {made}
    assert 1.9 < sizes["float32"] / sizes["bf16"] <= 2


def test_what_a_method_looks_over_is_computed_in_half_precision() -> None:
    data = regrain.load("digits").select(torch.arange(40))
    encoder = build_encoder("conv4", modality="image", sample_shape=(1, 8, 8), seed=0)
    method = METHODS["sup-ce"](encoder, [2]).eval()
    views = ImageViews(["plain"], size=8, mean=(0.5,), std=(0.5,))
    found = {}
    with torch.no_grad():
        for dtype in (torch.float32, torch.bfloat16):
            passes = scan_views(data, views, method, torch.device("cpu"), dtype)
            found[dtype] = torch.cat([method.encoder(x) for x, _, _ in passes])
    assert not torch.equal(found[torch.float32], found[torch.bfloat16])
    torch.testing.assert_close(found[torch.float32], found[torch.bfloat16], rtol=0.05, atol=0.05)
    assert all(p.dtype == torch.float32 for p in method.parameters())


def test_what_a_gpu_trained_in_fp16_is_used_on_a_cpu() -> None:
    assert scan_dtype("fp16", torch.device("cpu")) == scan_dtype("auto", torch.device("cpu"))
