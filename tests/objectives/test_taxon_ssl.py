"""Taxon-SSL against values of the published code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support import raises

from regrain.objectives import PseudoLabels, aligned_labels, confidence_threshold, taxon_ssl_loss

SIZE = 16
LEVELS = {"order": "orders", "family": "families", "species": "specifies"}
FROM = {"order": 0, "family": 20, "species": 147}
"""Given label from which a sample is known at the level."""


def test_published_values(shared: Path) -> None:
    with np.load(shared / "golden" / "rivals.npz") as file:
        values = {key.removeprefix("taxon/"): torch.from_numpy(file[key]) for key in file if key.startswith("taxon/")}
    logits = [values[f"{level}_logits"].requires_grad_() for level in LEVELS]
    features = values["features"].requires_grad_()
    given = values["given"]
    labels = torch.stack([torch.where(given >= FROM[level], values[level], -1) for level in LEVELS], dim=1)
    plain, strong = ([part[rows] for part in logits] for rows in (slice(SIZE), slice(SIZE, 2 * SIZE)))
    pseudo = [aligned_labels(part, part.detach().softmax(dim=1).mean(dim=0)) for part in plain]
    torch.testing.assert_close(pseudo[2].confidence, values["memory_species"], rtol=0, atol=1e-9)
    thresholds = [confidence_threshold(found.confidence, float(values["k"])) for found in pseudo]
    for threshold, name in zip(thresholds, LEVELS.values(), strict=True):
        assert float(threshold) == pytest.approx(float(values[f"{name}_thresh"]), abs=1e-9)
    losses = taxon_ssl_loss(plain, strong, features[SIZE : 2 * SIZE], features[2 * SIZE :], labels, pseudo, thresholds)
    for term, name, tolerance in (
        ("supervised", "supervised", 1e-9), ("pseudo", "pl", 1e-5), ("contrast", "contrastive", 1e-6),
        ("loss", "all", 1e-5),
    ):  # fmt: skip
        assert float(losses[term]) == pytest.approx(float(values[f"loss_{name}"]), abs=tolerance)
    losses["loss"].backward()
    torch.testing.assert_close(features.grad, values["grad_features"], rtol=0, atol=1e-6)
    torch.testing.assert_close(logits[2].grad, values["grad_species_logits"], rtol=0, atol=1e-6)


def test_only_the_sure_learn_from_pseudo_labels() -> None:
    logits, embeddings = [torch.zeros(2, 3)], torch.eye(2)
    pseudo = [PseudoLabels(torch.tensor([0, 1]), torch.tensor([0.4, 0.9]))]
    for threshold, share in ((0.3, 1.0), (0.5, 0.5), (1.0, 0.0)):
        found = taxon_ssl_loss(logits, logits, embeddings, embeddings, torch.full((2, 1), -1), pseudo, [threshold])
        assert float(found["pseudo"]) == pytest.approx(share * np.log(3))
        assert float(found["supervised"]) == 0


def test_wrong_arguments() -> None:
    logits, embeddings = [torch.zeros(2, 3)], torch.eye(2)
    pseudo = [aligned_labels(logits[0], torch.ones(3))]
    with raises("wrong_shape"):
        taxon_ssl_loss(logits, logits, embeddings, embeddings, torch.zeros(2, 2).long(), pseudo, [0.5])
    with raises("wrong_shape"):
        aligned_labels(logits[0], torch.ones(2))
    with raises("out_of_range"):
        confidence_threshold(torch.ones(3), 0.0)
