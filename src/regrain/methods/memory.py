"""Memory of a method between steps: a queue of keys, and a momentum twin of its network."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from regrain.checks import BelowOne, CountFromZero, Share
from regrain.data.dataset import Batch
from regrain.encoders.base import RANDOM, is_pretrained
from regrain.encoders.frozen import FrozenEncoder
from regrain.errors import UserError
from regrain.methods.base import Training
from regrain.methods.contrast import ContrastiveMethod


class Queue(nn.Module):
    """A first-in-first-out store of unit keys with their labels and sample ids, of any length and for any batch size.

    It starts empty, and :attr:`keys` gives its entries, so that a random key never counts as a sample. Keys passed to
    :meth:`stage` enter with :meth:`commit`, after the optimiser's step: no batch meets its own keys, and the batches
    of an accumulated step meet the same queue. Everything is part of the state dict.

    With ``owners`` there is one queue for each owner (superclass); :attr:`by_owner` gives their keys.

    Parameters
    ----------
    size : int
        Number of entries (of each owner), at least 0.
    width : int
        Width of a key.
    levels : int
        Label levels kept with each key.
    owners : int
        Number of owners.

    Examples
    --------
    >>> queue = Queue(3, 2)
    >>> for step in range(2):
    ...     queue.stage(torch.eye(2), torch.tensor([2 * step, 2 * step + 1]))
    ...     queue.commit()
    >>> queue.ids.tolist()  # the oldest entry, sample 0, gave way to sample 3
    [3, 1, 2]
    >>> queues = Queue(2, 2, owners=2)
    >>> queues.stage(torch.eye(2).repeat(2, 1), torch.arange(4), owner=torch.tensor([0, 0, 0, -1]))
    >>> queues.commit()
    >>> queues.candidate_mask(torch.tensor([2, 7]), torch.tensor([0, 1]))  # the own key; places of samples 2 and 1
    tensor([[ True, False,  True],
            [ True, False, False]])
    """

    _keys: Tensor
    _labels: Tensor
    _ids: Tensor
    _positions: Tensor
    _filled: Tensor

    def __init__(self, size: int, width: int, levels: int = 0, *, owners: int = 1) -> None:
        super().__init__()
        self.size, self.owners = size, owners
        rows = owners * size + 1  # the last is written where a key is dropped: no wait for a device to select rows
        self.register_buffer("_keys", torch.zeros(rows, width))  # unit vectors once a place is filled
        self.register_buffer("_labels", torch.full((rows, levels), -1, dtype=torch.long))
        self.register_buffer("_ids", torch.full((rows,), -1, dtype=torch.long))
        self.register_buffer("_positions", torch.zeros(owners + 1, dtype=torch.long))
        self.register_buffer("_filled", torch.zeros(owners + 1, dtype=torch.long))
        self._entries = 0
        self._staged: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    @property
    def keys(self) -> Tensor:
        """(filled, width), of one owner."""
        return self._keys[: self._entries]

    @property
    def labels(self) -> Tensor:
        """(filled, levels)."""
        return self._labels[: self._entries]

    @property
    def ids(self) -> Tensor:
        """(filled,)."""
        return self._ids[: self._entries]

    @property
    def by_owner(self) -> Tensor:
        """(owners, size, width): filled where :meth:`candidate_mask` says so."""
        return self._keys[:-1].view(self.owners, self.size, -1)

    def stage(self, keys: Tensor, ids: Tensor, labels: Tensor | None = None, owner: Tensor | None = None) -> None:
        """Hold a batch (B, width), (B,), (B, levels) until :meth:`commit`; drop rows whose owner (B,) is -1."""
        labels = ids.new_empty(len(ids), 0) if labels is None else labels
        owner = torch.zeros_like(ids) if owner is None else owner
        self._staged.append((keys.detach(), ids, labels, owner))

    @torch.no_grad()
    def commit(self) -> None:
        """Write the staged batches over the oldest entries."""
        for keys, ids, labels, owner in self._staged if self.size else ():
            owner = torch.where(owner < 0, self.owners, owner)
            counts = torch.zeros_like(self._filled).index_add_(0, owner, torch.ones_like(owner))
            order = owner.argsort(stable=True)  # by owner, the oldest first
            owner = owner[order]
            rank = torch.arange(len(order), device=owner.device) - (counts.cumsum(0) - counts)[owner]
            places = owner * self.size + (self._positions[owner] + rank) % self.size
            kept = (owner < self.owners) & (rank >= counts[owner] - self.size)
            places = places.where(kept, len(self._keys) - 1)
            for rows, new in ((self._keys, keys), (self._labels, labels), (self._ids, ids)):
                rows[places] = new[order].to(rows.dtype)
                rows[-1] = -1
            self._positions.add_(counts).remainder_(self.size)
            self._filled.add_(counts).clamp_(max=self.size)
            self._entries = min(self._entries + len(keys), self.size)
        self._staged.clear()

    def candidate_mask(self, ids: Tensor, owner: Tensor | None = None) -> Tensor:
        """Return a BoolTensor (B, 1 + filled), or (B, 1 + size) with owners: False at a sample's own old keys.

        The first column is the sample's own new key.
        """
        if owner is None:
            allowed = ids[:, None] != self.ids
        else:
            owner = owner.clamp(min=0)
            filled = torch.arange(self.size, device=ids.device) < self._filled[owner, None]
            allowed = filled & (self._ids[:-1].view(self.owners, -1)[owner] != ids[:, None])
        return functional.pad(allowed, (1, 0), value=True)

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self._entries)

    def set_extra_state(self, state: Any) -> None:
        self._entries = int(state)


def fit_queue(settings: dict[str, Any], training: Training, *, of_each: int = 1) -> list[str]:
    """Make the queue shorter than the data, or than the mean share of ``of_each`` superclasses.

    The default is reduced, with a notice; a length that the user gave is refused.
    """
    size, samples = settings["queue_size"], training.samples // of_each
    each, of = (" for each superclass", " of a superclass in the mean") if of_each > 1 else ("", "")
    half = max(1, samples // 2)
    if size <= half:
        return []
    if "queue_size" not in training.given:
        settings["queue_size"] = half
        return [f"queue of {half} entries{each}, half of the {samples} training samples{of} (default {size})"]
    if size > samples:
        raise UserError(
            f"queue_size {size}{each} is longer than the training data ({samples} samples{of}): it would hold a "
            f"sample's own old keys. Use at most {samples}; {half} is a good start",
            code="out_of_range",
        )
    return []


class MomentumTwin(nn.Module):
    """A copy of a network that follows it as a moving average, batch-norm statistics included.

    twin <- momentum * twin + (1 - momentum) * network, for parameters and floating-point buffers; counters are copied.
    (He et al. 2020, eq. 2, average parameters alone and leave the twin's statistics to its own batches.)

    Parameters
    ----------
    *parts : nn.Module
        Modules applied in sequence.
    momentum : float in [0, 1)
    """

    def __init__(self, *parts: nn.Module, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.network = copy.deepcopy(nn.Sequential(*parts)).requires_grad_(False)

    @torch.no_grad()
    def forward(self, x: Any) -> Tensor:
        return self.network(x)

    def key(self, view: Any) -> Tensor:
        """Return unit keys (B, width) of a view, without gradient."""
        return functional.normalize(self(view).float(), dim=1)

    @torch.no_grad()
    def update(self, *parts: nn.Module) -> None:
        """Move one step towards the network of ``parts``."""
        own: list[Tensor] = list(self.network.parameters())
        other: list[Tensor] = [parameter for part in parts for parameter in part.parameters()]
        buffers = [buffer for part in parts for buffer in part.buffers()]
        for mine, theirs in zip(self.network.buffers(), buffers, strict=True):
            if mine.is_floating_point():
                own.append(mine)
                other.append(theirs)
            else:
                mine.copy_(theirs)
        torch._foreach_lerp_(own, other, 1 - self.momentum)


class MomentumContrast(ContrastiveMethod):
    """Base of the methods that contrast a query with its own key and a queue of keys (He et al. 2020).

    Query: z = h(f(view 1)), trained. Key: the momentum twin's embedding of view 2, without gradient.

    Parameters
    ----------
    queue_size : int
        Entries of the queue; ``regrain fit`` takes half of the training samples where they are fewer than twice it.
    momentum : float
        Momentum of the twin, in [0, 1).
    **contrast
        See :class:`~regrain.methods.contrast.ContrastiveMethod`.
    """

    training_only: ClassVar[tuple[str, ...]] = ("twin", "queue")

    def __init__(
        self,
        encoder: nn.Module,
        classes: Sequence[int],
        *,
        queue_size: CountFromZero = 8192,
        momentum: BelowOne = 0.99,
        **contrast: Any,
    ) -> None:
        super().__init__(encoder, classes, **contrast)
        self.twin = MomentumTwin(encoder, self.projector, momentum=momentum)
        self.queue = Queue(queue_size, self.projector_width, len(self.roles))

    @classmethod
    def fit_settings(cls, settings: dict[str, Any], training: Training) -> list[str]:
        return fit_queue(settings, training)

    def forward_views(self, batch: Batch) -> dict[str, Tensor]:
        query_view, key_view = batch.views
        features = self.encoder(query_view)
        query, key = self.projector(features), self.twin.key(key_view)
        return {"query": query, "key": key, "labels": batch.labels, "ids": batch.ids, **self.forward_features(features)}

    def forward_features(self, features: Tensor) -> dict[str, Tensor]:
        """Compute further rows from f(view 1), such as class logits; :meth:`contrast` gets them by name."""
        return {}

    def loss(self, query: Tensor, key: Tensor, labels: Tensor, ids: Tensor, **features: Tensor) -> dict[str, Tensor]:
        self.queue.stage(key, ids, labels)  # enters after the step
        return self.contrast(query, key, labels, self.queue.candidate_mask(ids), **features)

    def contrast(self, *args: Any, **features: Any) -> dict[str, Tensor]:
        """Return ``loss`` and terms from query, key, labels and mask (B, 1 + queue), which excludes own old keys."""
        raise NotImplementedError

    def share_without_positives(self, coarse: Tensor, mask: Tensor) -> Tensor:
        """Return the share of rows without a positive in the queue besides own old keys: their relation is self."""
        labels = self.queue.labels[:, 0]
        positives = (coarse[:, None] == labels) & (labels >= 0) & mask[:, 1:]
        return (~positives.any(dim=1)).float().mean()

    def after_step(self) -> None:
        self.queue.commit()
        self.twin.update(self.encoder, self.projector)


class WeightedContrast(MomentumContrast):
    """Base of the methods that mix the coarse-label relation with the self relation by a ``weight`` w.

    Parameters
    ----------
    weight : float, optional
        w, in [0, 1]; default: :meth:`default_weight` of the encoder.
    **memory
        See :class:`MomentumContrast`.
    """

    weights: ClassVar[tuple[float, float]]
    """Defaults of w: where neighbours are unreliable at the start, and where they are reliable."""

    def __init__(
        self, encoder: nn.Module, classes: Sequence[int], *, weight: Share | None = None, **memory: Any
    ) -> None:
        super().__init__(encoder, classes, **memory)
        self.weight = self.default_weight(encoder)[0] if weight is None else weight

    @classmethod
    def fit_settings(cls, settings: dict[str, Any], training: Training) -> list[str]:
        notices = super().fit_settings(settings, training)
        if settings["weight"] is None:
            settings["weight"], why = cls.default_weight(training.encoder)
            notices.append(f"weight {settings['weight']:g}, for {why}")
        return notices

    @classmethod
    def default_weight(cls, encoder: nn.Module) -> tuple[float, str]:
        """Return w for an encoder at the start of training, and the reason.

        A random network preserves the neighbours of vectors, words and movements, but not of pictures.

        Examples
        --------
        >>> from regrain.encoders import build_encoder
        >>> from regrain.methods import MaskCon
        >>> MaskCon.default_weight(build_encoder("conv4", modality="image", sample_shape=(3, 32, 32)))
        (0.5, 'the encoder starts from random weights')
        """
        little, much = cls.weights
        if isinstance(encoder, FrozenEncoder):
            return much, "the encoder is frozen"
        if is_pretrained(getattr(encoder, "origin", RANDOM)):
            return much, "the encoder starts from pretrained weights"
        if getattr(encoder, "modality", "image") != "image":
            return much, f"neighbours among {encoder.modality} samples mean something before any training"
        return little, "the encoder starts from random weights"
