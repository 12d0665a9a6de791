"""Taxon-SSL, the semi-supervised baseline of Free-Grained Hierarchical Visual Recognition (CVPR 2026)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from regrain.checks import Count, Positive
from regrain.data.dataset import Batch
from regrain.encoders.heads import projector
from regrain.methods.base import EVERY, Method, Needs, Training, TrainingPass
from regrain.objectives.taxon_ssl import aligned_labels, confidence_threshold, taxon_ssl_loss

_BATCHES, _SCORES = 32, 50_000
_FIRST_SHARE, _LAST_SHARE = 0.05, 0.8


class TaxonSSL(Method):
    """A linear head for every level, pseudo-labels where it is sure, and a contrast of samples on the same path.

    See :func:`~regrain.objectives.taxon_ssl.taxon_ssl_loss`. Probabilities are divided by the mean of the last 32
    batches' before a class is taken for a pseudo-label, of the most sure share of the last 50,000 samples; the share
    grows from 0.05 to 0.8. The heads know no taxonomy: their predictions may be on different branches. Evaluation uses
    f(x).

    Parameters
    ----------
    temperature : float
        tau of the contrast.
    projector_hidden, projector_width : int
        Widths of the head whose output is contrasted.
    ramp_epochs : int, optional
        Epochs in which the share grows; default a quarter of the training.
    """

    name = "taxon-ssl"
    summary = "labels at several levels, any of them missing: pseudo-labels of every level"
    needs = Needs(levels=(EVERY,), views=("weak", "simclr", "strong"), minimum_classes=2)
    uses_in_batch_negatives = True
    training_only = ("projector", "marginals", "scores", "_extra_state")
    marginals: Tensor
    scores: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        classes: Sequence[int],
        *,
        temperature: Positive = 0.1,
        projector_hidden: Count = 512,
        projector_width: Count = 128,
        ramp_epochs: Count | None = None,
    ) -> None:
        super().__init__(encoder, classes)
        self.temperature = temperature
        self.ramp_epochs = ramp_epochs or 1
        self.heads = nn.ModuleList(nn.Linear(self.encoder_width, count) for count in self.classes)
        self.projector = projector(self.encoder_width, projector_hidden, projector_width)
        self.register_buffer("marginals", torch.zeros(_BATCHES, sum(self.classes)))
        self.register_buffer("scores", torch.zeros(_SCORES, len(self.classes)))
        self._counts = {"marginals": 0, "scores": 0, "epochs": 0}  # seen so far; on the host, which need not wait

    @classmethod
    def fit_settings(cls, settings: dict[str, Any], training: Training) -> list[str]:
        if settings["ramp_epochs"] is None:
            settings["ramp_epochs"] = max(1, round(training.epochs / 4))
        return []

    def before_epoch(self, training_set: TrainingPass) -> None:
        self._counts["epochs"] += 1

    def forward_views(self, batch: Batch) -> dict[str, Tensor]:
        plain, strong, other = (self.encoder(view) for view in batch.views)
        return {
            "logits": torch.cat([head(plain) for head in self.heads], dim=1),
            "strong_logits": torch.cat([head(strong) for head in self.heads], dim=1),
            "query": self.projector(strong),
            "key": self.projector(other),
            "labels": batch.labels,
        }

    def loss(
        self, logits: Tensor, strong_logits: Tensor, query: Tensor, key: Tensor, labels: Tensor
    ) -> dict[str, Tensor]:
        plain = logits.float().split(self.classes, dim=1)
        with torch.no_grad():
            self._remember("marginals", torch.cat([p.softmax(dim=1).mean(dim=0) for p in plain])[None])
            marginals = self._remembered("marginals").mean(dim=0).split(self.classes)
            pseudo = [aligned_labels(p, m) for p, m in zip(plain, marginals, strict=True)]
            self._remember("scores", torch.stack([found.confidence for found in pseudo], dim=1))
            done = min(1.0, max(0, self._counts["epochs"] - 1) / self.ramp_epochs)
            share = _FIRST_SHARE + done * (_LAST_SHARE - _FIRST_SHARE)
            thresholds = [confidence_threshold(column, share) for column in self._remembered("scores").T]
        return taxon_ssl_loss(
            plain, strong_logits.float().split(self.classes, dim=1), query, key, labels, pseudo, thresholds,
            temperature=self.temperature,
        )  # fmt: skip

    def class_logits(self, x: Any) -> dict[str, Tensor]:
        features = self.encoder(x)
        return {role: head(features) for role, head in zip(self.roles, self.heads, strict=True)}

    def _remember(self, name: str, rows: Tensor) -> None:
        """Write rows over the oldest."""
        memory = getattr(self, name)
        rows = rows[-len(memory) :]
        places = (self._counts[name] + torch.arange(len(rows), device=rows.device)) % len(memory)
        memory[places] = rows
        self._counts[name] += len(rows)

    def _remembered(self, name: str) -> Tensor:
        memory: Tensor = getattr(self, name)
        return memory[: min(self._counts[name], len(memory))]

    def get_extra_state(self) -> dict[str, int]:
        return dict(self._counts)

    def set_extra_state(self, state: Any) -> None:
        self._counts = {name: int(count) for name, count in state.items()}
