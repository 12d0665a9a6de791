"""SCLRE: superclasses whose members look nothing alike (Kang et al., CVPR 2023)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from regrain.checks import Count, NonNegative, Positive
from regrain.data.dataset import Batch
from regrain.encoders.heads import projector
from regrain.errors import UserError, warn
from regrain.labels import Labels
from regrain.methods.assignment import over_training_set
from regrain.methods.base import Method, Needs, TrainingPass
from regrain.methods.classifier import balanced_weights, labelled_cross_entropy
from regrain.objectives.attention import attention_spread, attention_weights, cross_instance_attention
from regrain.objectives.targets import sclre_contrastive_loss, target_loss, uniform_targets

_ENTROPY_AT_START = 0.4
"""Share of the maximal entropy in the first batch: of 64 samples each attends to about five, most to itself."""

_SCALES, _HALVINGS = (0.01, 100.0), 10
"""Where the scale of W_Q and W_K is looked for, to one per cent: a last digit of z does not move it."""

_UNIFORM, _SINK = 0.95, 0.25
"""Entropy above which attention is uniform, and reach below which all attend to a few: means over an epoch."""


class SCLRE(Method):
    r"""Embeddings enhanced by attention to other samples, drawn to fixed targets.

    z = g(f(x)); v = cross-instance attention of z over the global batch
    (:func:`~regrain.objectives.attention.cross_instance_attention`); a linear classifier on v; and

    .. math:: L = w_{con} L_{con} + w_{ce} \mathrm{CE} + w_{tar} L_{tar}

    with :func:`~regrain.objectives.targets.sclre_contrastive_loss` and
    :func:`~regrain.objectives.targets.target_loss`. Evaluation uses v.

    As published the attention starts uniform, for z is small and W_Q and W_K know nothing of each other: all v
    coincide, and it learns next to nothing before it becomes a sink, where all samples attend to the same few. So here
    z is normalised over its columns (layer normalisation without parameters); W_K starts as W_Q, and both are scaled in
    the first batch until the attention's entropy is 0.4 of its maximum, from where they are trained apart; and z, at
    unit length, is added to what attention gives, so that a sample keeps what is its own. ``form="published"`` leaves
    all three out. The log has the attention's entropy, what samples give themselves and how many are attended to
    (:func:`~regrain.objectives.attention.attention_spread`); a RegrainWarning says when an epoch's attention is
    uniform, or a sink.

    Measured on frozen features: level with a plain classifier (sup-ce) where labels are right. ``attention="none"``,
    which keeps contrast, targets and unit length, was as good or better there: try both.

    At inference a sample attends to itself and to a bank: training embeddings z, chosen at random by the seed, equally
    many of every superclass, made by the final weights and kept in the model. So a prediction depends on the sample
    alone. The published code lets the test samples of a batch attend to each other, which makes a score depend on the
    batch (``attention="batch"``).

    Samples of unknown coarse label take part in the attention and leave all three losses; they are not in the bank.

    Parameters
    ----------
    attention : {"bank", "batch", "none"}
        The samples that a sample attends to at inference; ``batch`` is transductive, as published; ``none`` leaves
        attention out of training too: v is z scaled to unit length.
    form : {"normalised", "published"}
        Form of the attention, see above.
    contrastive_weight, ce_weight, target_weight : float
        At least 0; 0 switches a part off. The classifier is trained by ``ce_weight`` alone.
    temperature : float
        Temperature T of both adjustments, > 0.
    heads : int
        Number of attention heads; their queries and keys are 2 ``width`` wide in all.
    hidden, width : int
        Widths of g's hidden layer and output; ``width`` is also the width of z and v.
    bank_size : int
        Samples in the bank in total, at least one for each superclass.
    balance_classes : bool
        Weigh samples against the size of their superclass in the cross entropy.
    """

    name = "sclre"
    summary = "classifier of superclasses that look nothing alike inside: attention across samples"
    needs = Needs(levels=("coarse",), views=("strong",), minimum_classes=2)
    uses_in_batch_negatives = True
    training_only = ("class_weight", "begun")
    class_weight: Tensor
    begun: Tensor
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
        form: Literal["normalised", "published"] = "normalised",
        contrastive_weight: NonNegative = 0.5,
        ce_weight: NonNegative = 0.5,
        target_weight: NonNegative = 0.2,
        temperature: Positive = 0.5,
        heads: Count = 8,
        hidden: Count = 512,
        width: Count = 128,
        bank_size: Count = 1024,
        balance_classes: bool = False,
    ) -> None:
        super().__init__(encoder, classes)
        if width % heads:
            raise UserError(f"width {width} is shared out over {heads} heads", code="wrong_shape")
        if bank_size < self.classes[0]:
            raise UserError(
                f"bank_size must be at least {self.classes[0]}, a sample of each superclass; got {bank_size}",
                code="out_of_range",
            )
        self.attention = attention
        self.form = form
        self.contrastive_weight = contrastive_weight
        self.ce_weight = ce_weight
        self.target_weight = target_weight
        self.temperature = temperature
        self.heads = heads
        self.balance_classes = balance_classes
        self.projector = projector(self.encoder_width, hidden, width, batch_norm=True)
        self.to_query = nn.Linear(width, 2 * width, bias=False)
        self.to_key = nn.Linear(width, 2 * width, bias=False)
        self.to_value = nn.Linear(width, width, bias=False)
        if self._normalises:
            self.to_key.weight.data.copy_(self.to_query.weight)
        self.classifier = nn.Linear(width, self.classes[0])
        self._seed = int(torch.randint(2**31, ()))
        self._spread: list[Tensor] = []
        self._begins = self._normalises  # what ``begun`` said last, for the host, and ``bank_count``
        self._bank_rows: int | None = 0
        self._said: set[str] = set()
        self.register_buffer("targets", uniform_targets(self.classes[0], width, seed=self._seed))
        self.register_buffer("class_weight", torch.ones(self.classes[0]))
        self.register_buffer("begun", torch.tensor(not self._normalises))
        self.register_buffer("bank", torch.zeros(bank_size, width))
        self.register_buffer("bank_ids", torch.zeros(bank_size, dtype=torch.long))
        self.register_buffer("bank_count", torch.zeros((), dtype=torch.long))

    def projections(self, x: Any) -> Tensor:
        """z (B, width) of samples, as the attention sees it."""
        z: Tensor = self.projector(self.encoder(x)).float()
        return functional.layer_norm(z, z.shape[1:]) if self._normalises else z

    def forward_views(self, batch: Batch) -> dict[str, Tensor]:
        return {"z": self.projections(batch.views[0]), "labels": batch.labels}

    def loss(self, z: Tensor, labels: Tensor) -> dict[str, Tensor]:
        coarse = labels[:, 0]
        spread = self._describe(z.detach())
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
            **spread,
        }

    @property
    def _normalises(self) -> bool:
        return self.form == "normalised" and self.attention != "none"

    @torch.no_grad()
    def _describe(self, z: Tensor) -> dict[str, Tensor]:
        """Return how attention within the batch is spread; in the first batch, scale it to separate samples."""
        if self.attention == "none" or len(z) < 2:
            return {}
        if self.training and self._begins:
            if not bool(self.begun):
                self._begin(z)
            self._begins = False
        weights = attention_weights(z, None, self.to_query.weight, self.to_key.weight, heads=self.heads)
        spread = attention_spread(weights)
        if self.training:
            self._spread.append(torch.stack(spread))
        return dict(zip(("attention_entropy", "attention_own", "attention_reach"), spread, strict=True))

    def _begin(self, z: Tensor) -> None:
        """Scale W_Q and W_K, which are equal, until attention among samples z has the entropy to start with."""
        weight = self.to_query.weight.clone()

        def entropy(scale: float) -> float:
            scaled = scale * weight
            return float(attention_spread(attention_weights(z, None, scaled, scaled, heads=self.heads))[0])

        low, high = _SCALES
        if entropy(high) < _ENTROPY_AT_START:  # else samples coincide: nothing tells them apart, and a warning says so
            for _ in range(_HALVINGS):
                middle = math.sqrt(low * high)
                low, high = (low, middle) if entropy(middle) < _ENTROPY_AT_START else (middle, high)
            for layer in (self.to_query, self.to_key):
                layer.weight.copy_(high * weight)
        self.begun.fill_(True)

    def _warn_of_attention(self) -> None:
        """Warn, once each, if the attention of the last epoch was uniform, or a sink."""
        if not self._spread:
            return
        entropy, own, reach = torch.stack(self._spread).mean(dim=0).tolist()
        self._spread = []
        if entropy > _UNIFORM:
            self._warn("uniform", f"nearly uniform (entropy {entropy:.3f} of its maximum): all embeddings coincide")
        elif reach < _SINK:
            self._warn("sink", f"a sink: {100 * reach:.0f}% of a batch receive all of it, {100 * own:.1f}% stay own")

    def _warn(self, kind: str, what: str) -> None:
        if kind in self._said:
            return
        self._said.add(kind)
        normalised = "method.form=normalised starts it otherwise, " if self.form == "published" else ""
        warn(
            f"sclre's attention was {what}, over the last epoch; the embeddings hold next to nothing of their own "
            f"samples. {normalised}method.attention=none leaves it out (said once)"
        )

    def setup(self, labels: Labels) -> None:
        self.class_weight.copy_(balanced_weights(labels.codes[:, 0], self.classes[0]))

    def before_epoch(self, training_set: TrainingPass) -> None:
        self._warn_of_attention()

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._begins, self._bank_rows = True, None

    def after_training(self, training_set: TrainingPass) -> None:
        self._warn_of_attention()
        if self.attention != "none":
            self.fill_bank(training_set)

    def fill_bank(self, training_set: TrainingPass) -> None:
        """Draw the bank's samples by the seed, and embed them with the current weights."""
        z, labels, ids = over_training_set(self, training_set, self.projections)
        order = ids.argsort()
        z, coarse, ids = z[order], labels[order, 0], ids[order]
        rows = drawn_by_class(coarse, len(self.bank), self.classes[0], self._seed)
        if not len(rows):
            raise UserError("no training sample has a coarse label: sclre's bank would be empty")
        self.bank[: len(rows)], self.bank_ids[: len(rows)] = z[rows], ids[rows]
        self.bank_count.fill_(len(rows))
        self._bank_rows = len(rows)

    @property
    def bank_keys(self) -> Tensor:
        """Ids (m,) of the bank's samples (:attr:`regrain.data.dataset.Dataset.keys`)."""
        return self.bank_ids[: self._filled]

    def attends_to(self, x: Any) -> tuple[Tensor, Tensor]:
        """Return the attention (B, m) of samples to the bank, mean over heads, and the ids (m,) of the bank's samples.

        Raises a UserError if the model was trained without attention.
        """
        if self.attention == "none":
            raise UserError("this sclre was trained without attention: there is nothing that samples attend to")
        bank = self._filled_bank()
        weights = attention_weights(
            self.projections(x), bank, self.to_query.weight, self.to_key.weight, heads=self.heads, include_self=True
        )
        return weights[:, :, :-1].mean(dim=0), self.bank_keys

    def embed(self, x: Any) -> Tensor:
        z = self.projections(x)
        return self._enhanced(z, self._filled_bank() if self.attention == "bank" else None)

    def class_logits(self, x: Any) -> dict[str, Tensor]:
        return {"coarse": self.classifier(self.embed(x))}

    def _filled_bank(self) -> Tensor:
        """Return the bank (m, width); before the end of training it is empty, and a sample attends to itself alone."""
        return self.bank[: self._filled]

    @property
    def _filled(self) -> int:
        """Samples in the bank; a device is asked once."""
        if self._bank_rows is None:
            self._bank_rows = int(self.bank_count)
        return self._bank_rows

    def _enhanced(self, z: Tensor, bank: Tensor | None) -> Tensor:
        """Return v of the samples, by attention over the bank or over the batch itself."""
        own = functional.normalize(z, dim=1)
        if self.attention == "none":
            return own
        weights = self.to_query.weight, self.to_key.weight, self.to_value.weight
        attended = cross_instance_attention(z, bank, *weights, heads=self.heads, include_self=bank is not None)
        return functional.normalize(own + attended, dim=1) if self._normalises else attended


def drawn_by_class(coarse: Tensor, count: int, classes: int, seed: int) -> Tensor:
    """Draw at most ``count`` rows of labelled samples, equally many of every class as far as it has enough."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(coarse), generator=generator).to(coarse.device)
    order = order[coarse[order] >= 0]
    own = [order[coarse[order] == c] for c in range(classes)]
    turns = torch.cat([torch.arange(len(rows)) for rows in own])  # a class's first sample, then all classes' second ...
    return torch.cat(own)[turns.argsort(stable=True).to(coarse.device)][:count]
