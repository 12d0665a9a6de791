"""TSC: supervised contrast towards targets spread over the sphere (Li et al., CVPR 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from regrain.checks import CountFromZero, NonNegative, Positive
from regrain.methods.base import READ_EVERY, Needs
from regrain.methods.classifier import class_counts, labelled_cross_entropy
from regrain.methods.memory import MomentumContrast
from regrain.objectives.gathering import from_first
from regrain.objectives.targets import match_targets, tsc_loss, uniform_targets

_KEPT = 0.9
"""Share of a class's running centroid that each step keeps."""


class TSC(MomentumContrast):
    """Key, sampled positives of the class and the class's target in one softmax (:func:`~.targets.tsc_loss`).

    In the first 16 steps and every 16th afterwards the classes' running centroids of the keys are matched to the
    targets by the Hungarian algorithm, for which the host waits for a GPU; the paper matches in every step. The
    published method trains its classifier afterwards; here a linear one learns alongside on f(x), without gradient to
    the encoder. Evaluation uses f(x).

    Parameters
    ----------
    positives : int
        Queue entries of the own class drawn as positives, at least 0; all where there are fewer.
    target_weight : float
        lambda, at least 0; 0 leaves the targets' term out.
    temperature : float
        Temperature, > 0.
    **memory
        See :class:`~regrain.methods.memory.MomentumContrast`.
    """

    name = "tsc"
    summary = "supervised contrast towards targets spread over the sphere, one a superclass"
    needs = Needs(levels=("coarse",), views=("strong", "weak"), minimum_classes=2)
    training_only = (*MomentumContrast.training_only, "targets", "centroids", "matched", "_extra_state")
    targets: Tensor
    centroids: Tensor
    matched: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        classes: Sequence[int],
        *,
        positives: CountFromZero = 6,
        target_weight: NonNegative = 0.2,
        temperature: Positive = 0.07,
        **memory: Any,
    ) -> None:
        super().__init__(encoder, classes, temperature=temperature, **memory)
        self.positives = positives
        self.target_weight = target_weight
        self.classifier = nn.Linear(self.encoder_width, self.classes[0])
        seed = int(torch.randint(2**31, ()))
        self.register_buffer("targets", uniform_targets(self.classes[0], self.projector_width, seed=seed))
        self.register_buffer("centroids", torch.zeros(self.classes[0], self.projector_width))
        self.register_buffer("matched", torch.arange(self.classes[0]))  # the target of each class
        self._steps = 0

    def forward_features(self, features: Tensor) -> dict[str, Tensor]:
        return {"logits": self.classifier(features.detach())}

    def contrast(self, query: Tensor, key: Tensor, labels: Tensor, mask: Tensor, logits: Tensor) -> dict[str, Tensor]:
        coarse, others = labels[:, 0], self.queue.labels[:, 0]
        self._move_centroids(key, coarse)
        if self._steps < READ_EVERY or self._steps % READ_EVERY == 0:
            self.matched.copy_(match_targets(self.centroids, self.targets))
        eligible = (others == coarse[:, None]) & (coarse >= 0)[:, None] & mask[:, 1:]
        loss = tsc_loss(
            query, key, self.queue.keys, coarse, others, self.targets[self.matched], temperature=self.temperature,
            positives=_sampled(eligible, self.positives), target_weight=self.target_weight, candidate_mask=mask,
        )  # fmt: skip
        classified = labelled_cross_entropy(logits, coarse)
        return {"loss": loss + classified, "contrast": loss.detach(), "cross_entropy": classified.detach()}

    @torch.no_grad()
    def _move_centroids(self, key: Tensor, coarse: Tensor) -> None:
        """Move the centroids of the classes that occur; a class's first mean is used unchanged."""
        counts = class_counts(coarse, self.classes[0])
        own = key.to(self.centroids.dtype).where((coarse >= 0)[:, None], 0)
        sums = torch.zeros_like(self.centroids).index_add_(0, coarse.clamp(min=0), own)
        means = sums / counts.clamp(min=1)[:, None]
        seen = (self.centroids != 0).any(dim=1)
        moved = torch.where(seen[:, None], _KEPT * self.centroids + (1 - _KEPT) * means, means)
        self.centroids.copy_(torch.where((counts > 0)[:, None], moved, self.centroids))

    def after_step(self) -> None:
        super().after_step()
        self._steps += 1

    def get_extra_state(self) -> int:
        return self._steps

    def set_extra_state(self, state: Any) -> None:
        self._steps = int(state)

    def class_logits(self, x: Any) -> dict[str, Tensor]:
        return {"coarse": self.classifier(self.encoder(x))}


def _sampled(eligible: Tensor, count: int) -> Tensor:
    """Draw at random at most ``count`` of the eligible entries of every row, (B, Q); every process draws alike."""
    if count >= eligible.shape[1]:
        return eligible
    if count == 0:
        return torch.zeros_like(eligible)
    ranks = from_first(torch.rand(eligible.shape, device=eligible.device)).masked_fill(~eligible, -1)
    chosen = ranks.topk(count, dim=1).indices
    return torch.zeros_like(eligible).scatter_(1, chosen, True) & eligible
