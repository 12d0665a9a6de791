"""SCLRE: superclasses whose members look nothing alike (Kang et al., CVPR 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from regrain.data.dataset import Batch
from regrain.encoders.heads import projector
from regrain.errors import UserError
from regrain.labels import Labels
from regrain.methods.assignment import over_training_set
from regrain.methods.base import Method, Needs, Scan
from regrain.methods.classifier import balanced_weights, labelled_cross_entropy
from regrain.objectives.attention import attention_weights, cross_instance_attention
from regrain.objectives.gather import gather
from regrain.objectives.targets import sclre_contrastive_loss, target_loss, uniform_targets
from regrain.settings import require_range

__all__ = ["SCLRE", "drawn_by_class"]


class SCLRE(Method):
    r"""Embeddings enhanced by attention to other samples, drawn to fixed targets.

    z = g(f(x)); v = cross-instance attention of z over the global batch
    (:func:`~regrain.objectives.attention.cross_instance_attention`); a linear classifier on v; and

    .. math:: L = w_{con} L_{con} + w_{ce} \mathrm{CE} + w_{tar} L_{tar}

    with :func:`~regrain.objectives.targets.sclre_contrastive_loss` and
    :func:`~regrain.objectives.targets.target_loss`. Evaluation uses v.

    At inference a sample attends to itself and to a bank: training embeddings z, chosen at random by the seed, equally
    many of every superclass, made by the final weights and kept in the model. So a prediction depends on the sample
    alone. The published code lets the test samples of a batch attend to each other, which makes a score depend on the
    batch (``attention="batch"``).

    Samples of unknown coarse label take part in the attention and leave all three losses; they are not in the bank.

    Parameters
    ----------
    encoder, classes
        See :class:`~regrain.methods.base.Method`; ``classes`` holds the number of superclasses.
    attention : {"bank", "batch", "none"}
        What a sample attends to at inference; ``batch`` is transductive, as published; ``none`` leaves attention out of
        training too: v is z scaled to unit length.
    residual : bool
        Add z, scaled to unit length, to what attention gives, so that a sample keeps what is its own; ours, not in the
        paper.
    contrastive_weight, ce_weight, target_weight : float
        At least 0; 0 switches a part off. The classifier is trained by ``ce_weight`` alone.
    temperature : float
        T of both adjustments, > 0.
    heads : int
    hidden, width : int
        Of g; ``width`` is that of z and v.
    query_width : int
        Of queries and keys, over all heads.
    bank_size : int
        Samples of the bank in all.
    bank_balanced : bool
        Equally many of every superclass; otherwise in the shares of the training data.
    bank_refresh : int
        Epochs between renewals of the bank during training; 0: at the end alone. Training itself never reads it.
    balance_classes : bool
        Weigh samples against the size of their superclass in the cross entropy.
    """

    name: ClassVar[str] = "sclre"
    summary: ClassVar[str] = "classifier of superclasses that look nothing alike inside: attention across samples"
    needs: ClassVar[Needs] = Needs(levels=("coarse",), views=("strong",), minimum_classes=2)
    in_batch: ClassVar[bool] = True
    training_only: ClassVar[tuple[str, ...]] = ("class_weight",)
    class_weight: Tensor
    bank: Tensor
    bank_ids: Tensor
    bank_count: Tensor
    targets: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        classes: Sequence[int],
        *,
        attention: Literal["bank", "batch", "none"] = "bank",
        residual: bool = False,
        contrastive_weight: float = 0.5,
        ce_weight: float = 0.5,
        target_weight: float = 0.2,
        temperature: float = 0.5,
        heads: int = 8,
        hidden: int = 512,
        width: int = 128,
        query_width: int = 256,
        bank_size: int = 1024,
        bank_balanced: bool = True,
        bank_refresh: int = 0,
        balance_classes: bool = False,
    ) -> None:
        super().__init__(encoder, classes)
        require_range(0, contrastive_weight=contrastive_weight, ce_weight=ce_weight, target_weight=target_weight)
        require_range(0, above=True, temperature=temperature)
        require_range(1, heads=heads, hidden=hidden, width=width, query_width=query_width)
        require_range(self.classes[0], bank_size=bank_size)
        require_range(0, bank_refresh=bank_refresh)
        if width % heads or query_width % heads:
            raise UserError(f"width {width} and query_width {query_width} are shared out over {heads} heads")
        self.attention = attention
        self.residual = residual
        self.contrastive_weight = contrastive_weight
        self.ce_weight = ce_weight
        self.target_weight = target_weight
        self.temperature = temperature
        self.heads = heads
        self.bank_balanced = bank_balanced
        self.bank_refresh = bank_refresh
        self.balance_classes = balance_classes
        self.projector = projector(self.encoder_width, hidden, width, batch_norm=True)
        self.to_query = nn.Linear(width, query_width, bias=False)
        self.to_key = nn.Linear(width, query_width, bias=False)
        self.to_value = nn.Linear(width, width, bias=False)
        self.classifier = nn.Linear(width, self.classes[0])
        self._seed = int(torch.randint(2**31, ()))
        self.epochs = 0
        self.register_buffer("targets", uniform_targets(self.classes[0], width, seed=self._seed))
        self.register_buffer("class_weight", torch.ones(self.classes[0]))
        self.register_buffer("bank", torch.zeros(bank_size, width))
        self.register_buffer("bank_ids", torch.zeros(bank_size, dtype=torch.long))
        self.register_buffer("bank_count", torch.zeros((), dtype=torch.long))

    def project(self, batch: Batch) -> dict[str, Tensor]:
        z = self.projector(self.encoder(batch.views[0]))
        return {"z": z, "labels": batch.labels}

    def losses_from(self, projected: Mapping[str, Tensor]) -> dict[str, Tensor]:
        z, coarse = projected["z"].float(), projected["labels"][:, 0]
        v = self._enhanced(z, None)
        contrastive = sclre_contrastive_loss(v, coarse, temperature=self.temperature)
        weight = self.class_weight if self.balance_classes else None
        classified = labelled_cross_entropy(self.classifier(v), coarse, weight=weight)
        targeted = target_loss(v, coarse, self.targets, temperature=self.temperature)
        loss = self.contrastive_weight * contrastive + self.ce_weight * classified + self.target_weight * targeted
        unused = 0 * (self.to_query.weight.sum() + self.to_key.weight.sum() + self.to_value.weight.sum())
        return {
            "loss": loss + unused,  # every weight has a gradient, also without attention
            "contrastive": contrastive.detach(),
            "cross_entropy": classified.detach(),
            "target": targeted.detach(),
        }

    def take_labels(self, labels: Labels) -> None:
        self.class_weight.copy_(balanced_weights(labels.codes[:, 0], self.classes[0]))

    def before_epoch(self, scan: Scan) -> None:
        if self.bank_refresh and self.epochs and self.epochs % self.bank_refresh == 0 and self.attention != "none":
            self.fill_bank(scan)
        self.epochs += 1

    def after_training(self, scan: Scan) -> None:
        if self.attention != "none":
            self.fill_bank(scan)

    def fill_bank(self, scan: Scan) -> None:
        """Draw the bank's samples by the seed, and embed them by the weights as they are."""
        z, labels, ids = (
            gather(rows, with_gradient=False)
            for rows in over_training_set(self, scan, lambda x: self.projector(self.encoder(x)).float())
        )
        order = ids.argsort()
        z, coarse, ids = z[order], labels[order, 0], ids[order]
        rows = drawn_by_class(coarse, len(self.bank), self.classes[0], self.bank_balanced, self._seed)
        if not len(rows):
            raise UserError("no training sample has a coarse label: sclre's bank would be empty")
        self.bank[: len(rows)], self.bank_ids[: len(rows)] = z[rows], ids[rows]
        self.bank_count.fill_(len(rows))

    @property
    def bank_keys(self) -> Tensor:
        """Ids (m,) of the bank's samples (:attr:`regrain.data.dataset.Dataset.keys`)."""
        return self.bank_ids[: int(self.bank_count)]

    def attends_to(self, x: Any) -> tuple[Tensor, Tensor]:
        """Attention (B, m) of samples to the bank, mean over heads, and the ids (m,) of the bank's samples.

        A UserError where the model was trained without attention.
        """
        if self.attention == "none":
            raise UserError("this sclre was trained without attention: there is nothing that samples attend to")
        bank = self._filled_bank()
        weights = attention_weights(
            self.projector(self.encoder(x)),
            bank,
            self.to_query.weight,
            self.to_key.weight,
            heads=self.heads,
            include_self=True,
        )
        return weights[:, :, :-1].mean(dim=0), self.bank_keys

    def embed(self, x: Any) -> Tensor:
        z = self.projector(self.encoder(x)).float()
        return self._enhanced(z, self._filled_bank() if self.attention == "bank" else None)

    def predict_proba(self, x: Any, level: str) -> Tensor:
        if level != "coarse":
            return super().predict_proba(x, level)
        result: Tensor = self.classifier(self.embed(x)).float().softmax(dim=1)
        return result

    def get_extra_state(self) -> dict[str, int]:
        return {"epochs": self.epochs}

    def set_extra_state(self, state: Any) -> None:
        self.epochs = int(state["epochs"])

    def _filled_bank(self) -> Tensor:
        """(m, width); empty before the end of training, when a sample attends to itself alone."""
        return self.bank[: int(self.bank_count)]

    def _enhanced(self, z: Tensor, bank: Tensor | None) -> Tensor:
        """v of the samples; attention over the bank, or over the batch itself."""
        own = functional.normalize(z, dim=1)
        if self.attention == "none":
            return own
        weights = self.to_query.weight, self.to_key.weight, self.to_value.weight
        attended = cross_instance_attention(z, bank, *weights, heads=self.heads, include_self=bank is not None)
        return functional.normalize(own + attended, dim=1) if self.residual else attended


def drawn_by_class(coarse: Tensor, count: int, classes: int, balanced: bool, seed: int) -> Tensor:
    """(at most count,) rows of labelled samples: equally many of every class where it has so many, or at random."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(coarse), generator=generator).to(coarse.device)
    order = order[coarse[order] >= 0]
    if not balanced:
        return order[:count]
    own = [order[coarse[order] == c] for c in range(classes)]
    turns = torch.cat([torch.arange(len(rows)) for rows in own])  # a class's first sample, then all classes' second ...
    return torch.cat(own)[turns.argsort(stable=True).to(coarse.device)][:count]
