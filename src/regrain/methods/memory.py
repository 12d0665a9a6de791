"""What a method remembers between steps: a queue of keys, and a momentum twin of its network."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from regrain.checks import require_range
from regrain.data.dataset import Batch
from regrain.encoders.base import RANDOM, is_pretrained
from regrain.encoders.frozen import FrozenEncoder
from regrain.errors import UserError
from regrain.methods.contrast import ContrastiveMethod
from regrain.objectives.angular import angular_info_nce_loss


class Queue(nn.Module):
    """A first-in-first-out store of unit keys with their labels and sample ids, of any length and for any batch size.

    It starts empty and :attr:`keys` gives what it holds, so no random key ever poses as a sample. What is put in by
    :meth:`stage` enters with :meth:`commit`, after the optimiser's step: no batch meets its own keys, and the batches
    of an accumulated step meet the same queue. Everything is part of the state dict.

    Parameters
    ----------
    size : int
        Entries, at least 0.
    width : int
        Width of a key.
    levels : int
        Label levels kept with each key.

    Examples
    --------
    >>> queue = Queue(3, 2, 1)
    >>> for step in range(2):
    ...     queue.stage(torch.eye(2), torch.tensor([[0], [1]]), torch.tensor([2 * step, 2 * step + 1]))
    ...     queue.commit()
    >>> queue.ids.tolist()  # the oldest entry, sample 0, gave way to sample 3
    [3, 1, 2]
    """

    _keys: Tensor
    _labels: Tensor
    _ids: Tensor

    def __init__(self, size: int, width: int, levels: int) -> None:
        super().__init__()
        if size < 0:
            raise UserError(f"queue_size is a number of entries, at least 0; got {size}")
        self.size = size
        self.register_buffer("_keys", torch.zeros(size, width))
        self.register_buffer("_labels", torch.full((size, levels), -1, dtype=torch.long))
        self.register_buffer("_ids", torch.full((size,), -1, dtype=torch.long))
        self._position = 0
        self._filled = 0
        self._staged: list[tuple[Tensor, Tensor, Tensor]] = []

    @property
    def keys(self) -> Tensor:
        """(filled, width)."""
        return self._keys[: self._filled]

    @property
    def labels(self) -> Tensor:
        """(filled, levels)."""
        return self._labels[: self._filled]

    @property
    def ids(self) -> Tensor:
        """(filled,)."""
        return self._ids[: self._filled]

    def stage(self, keys: Tensor, labels: Tensor, ids: Tensor) -> None:
        """Keep a batch (B, width), (B, levels), (B,) until :meth:`commit`."""
        self._staged.append((keys.detach(), labels, ids))

    @torch.no_grad()
    def commit(self) -> None:
        """Let the staged batches in, over the oldest entries."""
        for keys, labels, ids in self._staged:
            keys, labels, ids = keys[-self.size :], labels[-self.size :], ids[-self.size :]
            if self.size == 0:
                continue
            places = torch.arange(self._position, self._position + len(keys), device=keys.device) % self.size
            self._keys[places] = keys.to(self._keys.dtype)
            self._labels[places] = labels
            self._ids[places] = ids
            self._position = (self._position + len(keys)) % self.size
            self._filled = min(self._filled + len(keys), self.size)
        self._staged.clear()

    def candidate_mask(self, ids: Tensor) -> Tensor:
        """BoolTensor (B, 1 + filled): False at a sample's own old keys; the first column is the own new key."""
        own = ids[:, None] == self.ids
        return ~functional.pad(own, (1, 0))

    def get_extra_state(self) -> Tensor:
        return torch.tensor([self._position, self._filled])

    def set_extra_state(self, state: Any) -> None:
        self._position, self._filled = (int(v) for v in state)


class ClassQueues(nn.Module):
    """A first-in-first-out queue of unit keys for every superclass; what :class:`Queue` says holds for each.

    Parameters
    ----------
    classes : int
        C.
    size : int
        Entries of one superclass's queue, at least 0.
    width : int
        Width of a key.

    Examples
    --------
    >>> queues = ClassQueues(2, 2, 2)
    >>> queues.stage(torch.eye(2).repeat(2, 1), torch.tensor([0, 0, 0, -1]), torch.arange(4))
    >>> queues.commit()
    >>> queues.candidate_mask(torch.tensor([0, 1]), torch.tensor([2, 7]))  # the own key; places of samples 2 and 1
    tensor([[ True, False,  True],
            [ True, False, False]])
    """

    keys: Tensor
    _ids: Tensor
    _positions: Tensor
    _filled: Tensor

    def __init__(self, classes: int, size: int, width: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("keys", torch.zeros(classes, size, width))  # unit vectors once a place is filled
        self.register_buffer("_ids", torch.full((classes, size), -1, dtype=torch.long))
        self.register_buffer("_positions", torch.zeros(classes, dtype=torch.long))
        self.register_buffer("_filled", torch.zeros(classes, dtype=torch.long))
        self._staged: list[tuple[Tensor, Tensor, Tensor]] = []

    def stage(self, keys: Tensor, coarse: Tensor, ids: Tensor) -> None:
        """Keep a batch (B, width), (B,), (B,) until :meth:`commit`; samples of unknown superclass are passed over."""
        self._staged.append((keys.detach(), coarse, ids))

    @torch.no_grad()
    def commit(self) -> None:
        """Let the staged batches in, over the oldest entries of each superclass."""
        for keys, coarse, ids in self._staged:
            if self.size == 0:
                continue
            counts = torch.bincount(coarse[coarse >= 0], minlength=len(self.keys))
            order = coarse.argsort(stable=True)[(coarse < 0).sum() :]  # by superclass, the oldest first
            owner = coarse[order]
            rank = torch.arange(len(order), device=coarse.device) - (counts.cumsum(0) - counts)[owner]
            kept = rank >= counts[owner] - self.size
            order, owner, rank = order[kept], owner[kept], rank[kept]
            places = (self._positions[owner] + rank) % self.size
            self.keys[owner, places] = keys[order].to(self.keys.dtype)
            self._ids[owner, places] = ids[order]
            self._positions.add_(counts).remainder_(self.size)
            self._filled.add_(counts).clamp_(max=self.size)
        self._staged.clear()

    def candidate_mask(self, coarse: Tensor, ids: Tensor) -> Tensor:
        """BoolTensor (B, 1 + size): True at the own new key, and at the filled places of other samples."""
        owner = coarse.clamp(min=0)
        filled = torch.arange(self.size, device=coarse.device) < self._filled[owner, None]
        return functional.pad(filled & (self._ids[owner] != ids[:, None]), (1, 0), value=True)


class MomentumTwin(nn.Module):
    """A copy of a network that follows it as a moving average, batch-norm statistics included.

    twin <- momentum * twin + (1 - momentum) * network, for parameters and floating-point buffers; counters are copied.
    (He et al. 2020, eq. 2, average parameters alone and leave the twin's statistics to its own batches.)

    Parameters
    ----------
    network : nn.Module
    momentum : float in [0, 1)
    """

    def __init__(self, network: nn.Module, momentum: float) -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise UserError(f"momentum lies in [0, 1); got {momentum}")
        self.momentum = momentum
        self.network = copy.deepcopy(network).requires_grad_(False)

    @torch.no_grad()
    def forward(self, x: Any) -> Tensor:
        result: Tensor = self.network(x)
        return result

    @torch.no_grad()
    def follow(self, network: nn.Module) -> None:
        """One step towards ``network``."""
        own: list[Tensor] = list(self.network.parameters())
        other: list[Tensor] = list(network.parameters())
        for mine, theirs in zip(self.network.buffers(), network.buffers(), strict=True):
            if mine.is_floating_point():
                own.append(mine)
                other.append(theirs)
            else:
                mine.copy_(theirs)
        torch._foreach_lerp_(own, other, 1 - self.momentum)


class _Embedder(nn.Module):
    """h(f(x))."""

    def __init__(self, encoder: nn.Module, projector: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = projector

    def forward(self, x: Any) -> Tensor:
        result: Tensor = self.projector(self.encoder(x))
        return result


class AngularMemory(nn.Module):
    """What angular contrast within superclasses remembers: the momentum twin, and a queue for every superclass.

    Parameters
    ----------
    encoder, embedder : nn.Module
        The network that the twin follows.
    width : int
        Of the embedder's output.
    classes : int
        Superclasses.
    temperature : float
        > 0.
    queue_size : int
        Keys of each superclass, at least 0.
    momentum : float
        Of the twin, in [0, 1).
    """

    def __init__(
        self,
        encoder: nn.Module,
        embedder: nn.Module,
        width: int,
        classes: int,
        *,
        temperature: float,
        queue_size: int,
        momentum: float,
    ) -> None:
        super().__init__()
        require_range(0, above=True, temperature=temperature)
        if queue_size < 0:
            raise UserError(f"queue_size is a number of keys for each superclass, at least 0; got {queue_size}")
        self.temperature = temperature
        self.twin = MomentumTwin(_Embedder(encoder, embedder), momentum)
        self.queues = ClassQueues(classes, queue_size, width)

    def key(self, view: Any) -> Tensor:
        """Unit keys (B, width) of a view, without gradient."""
        return functional.normalize(self.twin(view).float(), dim=1)

    def loss(self, query: Tensor, key: Tensor, coarse: Tensor, ids: Tensor, means: Tensor) -> Tensor:
        """The angular InfoNCE loss of the global batch, whose keys enter the queues after the step."""
        loss = angular_info_nce_loss(
            query,
            key,
            self.queues.keys,
            coarse,
            means,
            temperature=self.temperature,
            candidate_mask=self.queues.candidate_mask(coarse, ids),
        )
        self.queues.stage(key, coarse, ids)
        return loss

    def after_step(self, encoder: nn.Module, embedder: nn.Module) -> None:
        """Let the keys in, and the twin follow the network."""
        self.queues.commit()
        self.twin.follow(_Embedder(encoder, embedder))


class MomentumContrast(ContrastiveMethod):
    """Base of the methods that contrast a query with its own key and a queue of keys (He et al. 2020).

    Query: z = h(f(view 1)), trained. Key: the momentum twin's embedding of view 2, without gradient.

    Parameters
    ----------
    encoder, classes
        See :class:`~regrain.methods.base.Method`.
    queue_size : int
        Entries of the queue.
    momentum : float
        Of the twin, in [0, 1).
    **contrast
        See :class:`~regrain.methods.contrast.ContrastiveMethod`.
    """

    training_only: ClassVar[tuple[str, ...]] = ("twin", "queue")

    def __init__(
        self,
        encoder: nn.Module,
        classes: Sequence[int],
        *,
        queue_size: int = 8192,
        momentum: float = 0.99,
        **contrast: Any,
    ) -> None:
        super().__init__(encoder, classes, **contrast)
        self.twin = MomentumTwin(_Embedder(encoder, self.projector), momentum)
        self.queue = Queue(queue_size, self.projector_width, len(self.needs.levels))

    def project(self, batch: Batch) -> dict[str, Tensor]:
        query_view, key_view = batch.views
        features = self.encoder(query_view)
        key = functional.normalize(self.twin(key_view).float(), dim=1)
        return {
            "query": self.projector(features),
            "key": key,
            "labels": batch.labels,
            "ids": batch.ids,
        } | self.project_features(features)

    def project_features(self, features: Tensor) -> dict[str, Tensor]:
        """Further rows computed from f(view 1), such as class logits."""
        return {}

    def losses_from(self, projected: Mapping[str, Tensor]) -> dict[str, Tensor]:
        losses = self.contrast(projected, self.queue.candidate_mask(projected["ids"]))
        self.queue.stage(projected["key"], projected["labels"], projected["ids"])
        return losses

    def contrast(self, projected: Mapping[str, Tensor], candidate_mask: Tensor) -> dict[str, Tensor]:
        """``loss`` and terms from query, key and queue; candidate_mask (B, 1 + queue) leaves own old keys out."""
        raise NotImplementedError

    def share_without_positives(self, coarse: Tensor, candidate_mask: Tensor) -> Tensor:
        """The share of rows that no queue entry but their own old keys is a positive of: their relation is self."""
        labels = self.queue.labels[:, 0]
        entries = torch.zeros(self.classes[0] + 1, dtype=torch.long, device=coarse.device)
        entries.index_add_(0, labels % len(entries), torch.ones_like(labels))  # -1 counts in the last place
        entries[-1] = 0
        own = (~candidate_mask).sum(dim=1)
        return (entries[coarse] <= own).float().mean()

    def after_step(self) -> None:
        self.queue.commit()
        self.twin.follow(_Embedder(self.encoder, self.projector))


class WeightedContrast(MomentumContrast):
    """Base of the methods that mix what coarse labels say with the relation to oneself by a ``weight`` w.

    Parameters
    ----------
    encoder, classes
        See :class:`~regrain.methods.base.Method`.
    weight : float, optional
        w, in [0, 1]; default: :meth:`default_weight` of the encoder.
    **memory
        See :class:`MomentumContrast`.
    """

    weights: ClassVar[tuple[float, float]]
    """Defaults of w: where neighbours mean little at the start; where they mean much."""

    def __init__(
        self, encoder: nn.Module, classes: Sequence[int], *, weight: float | None = None, **memory: Any
    ) -> None:
        super().__init__(encoder, classes, **memory)
        if weight is None:
            weight, _ = self.default_weight(encoder)
        require_range(0, 1, weight=weight)
        self.weight = weight

    @classmethod
    def default_weight(cls, encoder: nn.Module) -> tuple[float, str]:
        """w for an encoder as it starts, and why.

        A random network keeps the neighbours of vectors and of words; those of pictures and series it has yet to find.

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
        if getattr(encoder, "modality", "") in ("text", "vector"):
            return much, f"neighbours among {encoder.modality} samples mean something before any training"
        return little, "the encoder starts from random weights"
