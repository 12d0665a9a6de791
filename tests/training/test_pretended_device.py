"""No step waits for the device: every method on a GPU that is only pretended, so that these tests need none.

Tensors on it have a shape and no values. What a host can only learn by waiting fails here: a shape that depends on
values (``nonzero``, boolean indices, ``unique``), ``.item()``, ``bool()``, and a copy from or to the host.
"""

from __future__ import annotations

import copy
import functools
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from support import labels_of
from torch import Tensor, nn
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from regrain.checks import hyperparameters
from regrain.data.dataset import Batch
from regrain.encoders import build_encoder
from regrain.labels import Labels
from regrain.methods import METHODS, Method
from regrain.methods.base import EVERY
from regrain.training.adapter import Adapter
from regrain.training.options import TrainingOptions
from regrain.views import ImageViews

SIZE, SAMPLES, BATCH = 16, 60, 12

SETTINGS: dict[str, dict[str, Any]] = {
    "george": {"coarse_epochs": 1},
    "scan": {"pretext_epochs": 1, "clustering_epochs": 1, "threshold": 0.3},
}
"""What lets three epochs reach every stage of the methods that have several."""

FIRST = {"tsc": 4}
"""How often a method sees its training set before it is looked at: first steps may wait."""

FORMS: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in METHODS if not METHODS[name].fit_once} | {
    "george, worst group": ("george", {"group_dro": True}),
    "mlcl, all heads": ("mlcl", {"global_weight": 0.1, "ce_weight": 0.7}),
    "sclre, published": ("sclre", {"form": "published", "balance_classes": True}),
    "self-classifier, neighbours": ("self-classifier", {"queue_size": 0, "neighbours": 4, "restarts": 2}),
    "sup-ce, balanced": ("sup-ce", {"balance_classes": True, "normalise_classifier": True}),
    "supcon, unknown alone": ("supcon", {"unknown": "self"}),
}
"""Every method, and forms of some whose step takes another way."""


class Waits(Exception):
    """The host waited for the device."""


class _CopyGuard(TorchDispatchMode):
    """Refuses copies between host and device but those from pinned memory that nobody waits for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        devices = {t.device.type for t in tree_iter((args, kwargs, result)) if isinstance(t, Tensor) and t.ndim}
        if len(devices) > 1:
            raise Waits(f"{func} from {[t.device.type for t in tree_iter((args, kwargs)) if isinstance(t, Tensor)]}")
        return result


@contextmanager
def pretended_device() -> Iterator[FakeTensorMode]:
    """A mode in which "cuda" exists; constants that were kept for it are forgotten afterwards."""
    kept = [item for item in gc.get_objects() if type(item) is functools._lru_cache_wrapper]
    kept = [item for item in kept if item.__module__.startswith("regrain.")]
    try:
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            yield mode
    finally:
        for item in kept:
            item.cache_clear()


def moved(thing: Any, seen: set[int] | None = None) -> Any:
    """A tensor, or all tensors that something holds, on the pretended device."""
    seen = set() if seen is None else seen
    if isinstance(thing, Tensor):
        fake = torch.empty_strided(thing.shape, thing.stride(), dtype=thing.dtype, device="cuda")
        return nn.Parameter(fake, thing.requires_grad) if isinstance(thing, nn.Parameter) else fake
    if isinstance(thing, tuple):
        return tuple(moved(part, seen) for part in thing)
    if id(thing) in seen:
        return thing
    seen.add(id(thing))
    if isinstance(thing, dict):
        thing.update({name: moved(part, seen) for name, part in thing.items()})
    elif isinstance(thing, list):
        thing[:] = [moved(part, seen) for part in thing]
    elif isinstance(thing, nn.Module):
        moved(thing.__dict__, seen)
    return thing


def build(form: str) -> tuple[Method, ImageViews]:
    torch.manual_seed(0)
    name, given = FORMS[form]
    cls = METHODS[name]
    known = hyperparameters(cls)
    small = {"subclasses": 6, "queue_size": 20, "hidden": 16, "class_counts": (4, 6), "local_views": 2, "bank_size": 15}
    settings = {key: value for key, value in small.items() if key in known} | SETTINGS.get(name, {}) | given
    encoder = build_encoder("conv4", modality="image", sample_shape=(3, SIZE, SIZE), seed=0)
    levels = 2 if cls.needs.levels == (EVERY,) else len(cls.needs.levels)
    method = cls(encoder, [6] if cls.needs.levels == ("fine",) else [3, 6][:levels], **settings)
    if levels:
        method.setup(Labels.from_codes(labels_of(method, SAMPLES)))
    presets = method.view_names({**{n: p.default for n, p in known.items()}, **settings})
    return method, ImageViews(presets, size=SIZE, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.filterwarnings("ignore")
def test_no_step_waits_for_the_device(form: str) -> None:
    method, views = build(form)
    raw = torch.randint(0, 256, (SAMPLES, 3, SIZE, SIZE), dtype=torch.uint8)
    labels, ids = labels_of(method, SAMPLES), 7 * torch.arange(SAMPLES) % 101
    adapter = Adapter(method, views, TrainingOptions())
    for _ in range(3 if method.name in SETTINGS else 1):
        method.before_epoch(lambda: [(views.plain(raw), labels, ids)])
        for rows in torch.arange(SAMPLES).split(BATCH) * FIRST.get(method.name, 1):
            step(adapter, (raw[rows], labels[rows], ids[rows]))
        method.eval().embed(views.plain(raw))
        method.train()
        there = copy.deepcopy(adapter)
        there.batches_seen = 0  # between two looks at the loss
        with pretended_device():
            moved(there)
            batch = moved((raw[:BATCH], labels[:BATCH], ids[:BATCH]))
            step(there, batch)  # constants come to the device once
            with _CopyGuard():
                step(there, batch)
                found = there.method.eval().embed(there.views.plain(batch[0]))
            assert found.device.type == "cuda"


def test_mixed_says_the_same_where_it_does_not_look_which_labels_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    method, views = build("mixed")
    raw, ids = torch.randint(0, 256, (SAMPLES, 3, SIZE, SIZE), dtype=torch.uint8), torch.arange(SAMPLES)
    for rows in torch.arange(SAMPLES).split(BATCH):
        batch = Batch(views(raw[rows], ids[rows], 0), labels_of(method, SAMPLES)[rows], ids[rows])
        projected = method.eval().forward_views(batch)
        losses = []
        for looks in (True, False):
            monkeypatch.setattr("regrain.methods.mixed.may_look", lambda _, looks=looks: looks)
            losses.append({name: value.detach() for name, value in method.loss(**projected).items()})
            method.queue._staged.clear()
        torch.testing.assert_close(losses[1], losses[0])
        method.loss(**projected)
        method.after_step()
    assert losses[0]["finer"] > 0


def step(adapter: Adapter, batch: tuple[Tensor, Tensor, Tensor]) -> None:
    """What the trainer does with a batch that was transferred."""
    optimizer = torch.optim.SGD(adapter.method.parameters(), lr=0.01)
    loss = adapter.training_step(adapter.on_after_batch_transfer(batch, 0), 0)
    if isinstance(loss, FakeTensor):  # there is no driver to run a graph backwards
        for parameter in adapter.method.parameters():
            parameter.grad = torch.zeros_like(parameter)
    else:
        loss.backward()
    optimizer.step()
    adapter.method.after_step()
