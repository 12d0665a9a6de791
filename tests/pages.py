"""Small runs of every modality, whose names and texts try to break out of the page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import regrain
from regrain.data.dataset import Dataset
from regrain.data.samples import SeriesSamples, TensorSamples, TextSamples
from regrain.labels import Labels

SCRIPT = "<script>alert(1)</script>"
SUBS = ["siamese", "tabby", SCRIPT, "=poodle"]
RunOf = Callable[[str], regrain.Run]


def samples_of(modality: str, fine: np.ndarray) -> Any:
    generator = np.random.default_rng(0)
    count = len(fine)
    if modality == "image":
        colours = np.array([[200, 30, 30], [30, 200, 30], [30, 30, 200], [200, 200, 30]])[fine]
        noise = generator.integers(0, 50, (count, 3, 16, 12))
        return TensorSamples(torch.from_numpy((colours[:, :, None, None] + noise).astype(np.uint8)), "image")
    if modality == "text":
        words = [["purr", "mouse"], ["stripe", "milk"], ["bark", "bone"], ["curl", "fetch"]]
        texts = [" ".join([*generator.choice([*words[f], "the", "big"], 6), "<i>it</i>"]) for f in fine]
        return TextSamples(texts)
    if modality == "vector":
        return TensorSamples(
            torch.from_numpy(generator.normal(size=(count, 6)) + 3 * np.eye(6)[fine]).float(), "vector"
        )
    steps = np.arange(24)[None, :, None] * (fine[:, None, None] + 1) / 4
    series = np.sin(steps + np.arange(2)) + generator.normal(size=(count, 24, 2)) * 0.2
    series[::5, 3] = np.nan
    return SeriesSamples(torch.from_numpy(series).float())


def dataset_of(modality: str, count: int = 96) -> Dataset:
    fine = np.arange(count) % 4
    names = {"pet": ["cat", "cat", "dog", "dog"], "breed": SUBS}
    labels = Labels.from_columns({level: [own[f] for f in fine] for level, own in names.items()})
    splits = np.where(np.arange(count) // 4 % 3 == 0, "test", "train")
    ids = np.array([f"{row}<img src=x onerror=alert(2)>" for row in range(count)])
    return Dataset(samples_of(modality, fine), labels, ids, f"{modality}s & co", splits)


ENCODERS = {"image": "conv4", "text": "hash-text", "vector": "mlp", "series": None}


def trained(modality: str, out: Path) -> regrain.Run:
    """A run of a modality."""
    settings = ["epochs=2", "batch_size=32"]
    return regrain.fit(
        "maskcon", dataset_of(modality), encoder=ENCODERS[modality], out=out, settings=settings, device="cpu"
    )
