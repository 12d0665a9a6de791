"""What every objective promises: gradients, precision, finiteness, permutation invariance, chunks, clear errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support import raises
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from regrain.errors import UserError
from regrain.objectives import (
    _numerics,
    coins_loss,
    grafit_loss,
    info_nce_loss,
    maskcon_loss,
    maskcon_relation,
    nnclr_loss,
    supcon_loss,
    supcon_queue_loss,
)

Loss = Callable[..., Tensor]

B, Q, D = 6, 9, 4


def _inputs(dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(3)
    vectors = {name: torch.randn(n, D, generator=random) for name, n in (("query", B), ("key", B), ("queue", Q))}
    return {
        "query": vectors["query"].to(dtype),
        "key": F.normalize(vectors["key"]).to(dtype),
        "queue": F.normalize(vectors["queue"]).to(dtype),
        "logits": torch.randn(B, 3, generator=random).to(dtype),
        "coarse": torch.tensor([0, 1, 1, 2, -1, 0]),
        "queue_coarse": torch.tensor([0, 1, -1, 0, 1, 1, 0, 1, 0]),
        "mask": torch.rand(B, 1 + Q, generator=random) < 0.8,
    }


def _maskcon(x: dict[str, Tensor], temperature: float) -> Tensor:
    return maskcon_loss(
        x["query"],
        x["key"],
        x["queue"],
        x["coarse"],
        x["queue_coarse"],
        temperature=temperature,
        soft_temperature=temperature,
        weight=0.6,
        candidate_mask=x["mask"],
    )


def _grafit(x: dict[str, Tensor], temperature: float) -> Tensor:
    vectors = x["query"], x["key"], x["queue"]
    return grafit_loss(*vectors, x["coarse"], x["queue_coarse"], temperature=temperature, weight=0.6)


def _supcon_queue(x: dict[str, Tensor], temperature: float) -> Tensor:
    return supcon_queue_loss(x["query"], x["key"], x["queue"], x["coarse"], x["queue_coarse"], temperature=temperature)


def _coins(x: dict[str, Tensor], temperature: float) -> Tensor:
    vectors = x["query"], x["key"], x["queue"]
    return coins_loss(*vectors, x["logits"], x["coarse"], temperature=temperature, weight=0.6)


def _info_nce(x: dict[str, Tensor], temperature: float) -> Tensor:
    return info_nce_loss(x["query"], x["key"], x["queue"], temperature=temperature, candidate_mask=x["mask"])


def _nnclr(x: dict[str, Tensor], temperature: float) -> Tensor:
    return nnclr_loss(
        x["key"], x["query"], x["queue"], temperature=temperature, neighbour_mask=x["mask"][:, 1:].contiguous()
    )


def _supcon(x: dict[str, Tensor], temperature: float) -> Tensor:
    return supcon_loss(x["query"], x["coarse"], temperature=temperature)


def _supcon_self(x: dict[str, Tensor], temperature: float) -> Tensor:
    sample = torch.tensor([0, 1, 2, 3, 0, 0])
    return supcon_loss(x["query"], x["coarse"] - 1, temperature=temperature, sample=sample, unknown="self")


LOSSES: list[Loss] = [_maskcon, _grafit, _supcon_queue, _coins, _info_nce, _nnclr, _supcon, _supcon_self]
each_loss = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__.strip("_"))


def value_and_gradient(loss: Loss, inputs: dict[str, Tensor], temperature: float = 0.2) -> tuple[Tensor, Tensor]:
    query = inputs["query"].clone().requires_grad_()
    value = loss(inputs | {"query": query}, temperature)
    return value.detach(), torch.autograd.grad(value, query)[0]


@each_loss
@pytest.mark.parametrize("chunk_elements", [2**22, 2 * (1 + Q)], ids=["whole", "chunked"])
def test_gradient(loss: Loss, chunk_elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_numerics, "CHUNK_ELEMENTS", chunk_elements)
    inputs = _inputs()
    query = inputs["query"].requires_grad_()
    assert torch.autograd.gradcheck(lambda q: loss(inputs | {"query": q}, 0.3), query)


@each_loss
@pytest.mark.parametrize("chunk_elements", [1, 3 * (1 + Q)])
def test_chunks_change_nothing(loss: Loss, chunk_elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = value_and_gradient(loss, _inputs())
    monkeypatch.setattr(_numerics, "CHUNK_ELEMENTS", chunk_elements)
    torch.testing.assert_close(value_and_gradient(loss, _inputs()), whole, rtol=1e-12, atol=1e-14)
    with torch.no_grad():
        value = loss(_inputs(), 0.2)
    torch.testing.assert_close(value, whole[0], rtol=1e-12, atol=0)
    assert not value.requires_grad


@each_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_float_type_is_computed_in_float32(loss: Loss, dtype: torch.dtype) -> None:
    inputs = _inputs(dtype)
    value, gradient = value_and_gradient(loss, inputs)
    assert value.dtype == torch.float32
    assert gradient.dtype == dtype
    exact = {name: x.double() if x.is_floating_point() else x for name, x in inputs.items()}
    exact_value, exact_gradient = value_and_gradient(loss, exact)
    assert exact_value.dtype == torch.float64
    assert value.item() == pytest.approx(exact_value.item(), rel=1e-5)
    torch.testing.assert_close(gradient, exact_gradient.to(dtype), rtol=1e-2, atol=1e-5)


@each_loss
def test_autocast_changes_nothing(loss: Loss) -> None:
    inputs = _inputs(torch.float32)
    expected = value_and_gradient(loss, inputs)
    query = inputs["query"].requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(inputs, 0.2)
    torch.testing.assert_close((value.detach(), *torch.autograd.grad(value, query)), expected, rtol=0, atol=0)


@each_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_small_temperature_and_zero_vectors_are_finite(loss: Loss, dtype: torch.dtype) -> None:
    inputs = _inputs(dtype)
    inputs["query"][1] = 0
    for temperature in (1e-4, 0.1):
        value, gradient = value_and_gradient(loss, inputs, temperature)
        assert value.isfinite()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("loss", [loss for loss in LOSSES if loss is not _supcon_self])  # its samples stay in place
def test_order_of_rows_and_queue_is_irrelevant(loss: Loss) -> None:
    inputs = _inputs()
    rows, entries = torch.randperm(B), torch.randperm(Q)
    shuffled = {name: x[rows] if len(x) == B else x[entries] for name, x in inputs.items()}
    shuffled["mask"] = inputs["mask"][rows][:, torch.cat([torch.zeros(1, dtype=torch.long), 1 + entries])]
    value, gradient = value_and_gradient(loss, inputs)
    shuffled_value, shuffled_gradient = value_and_gradient(loss, shuffled)
    torch.testing.assert_close(shuffled_value, value)
    torch.testing.assert_close(shuffled_gradient, gradient[rows])


@pytest.mark.parametrize("loss", [loss for loss in LOSSES if loss not in (_supcon, _supcon_self)])
def test_batch_of_one(loss: Loss) -> None:
    one = {name: x[:1] if len(x) == B else x for name, x in _inputs().items()}
    value, gradient = value_and_gradient(loss, one)
    assert value.isfinite()
    assert gradient.isfinite().all()


@each_loss
def test_no_labels_at_all_is_finite(loss: Loss) -> None:
    inputs = _inputs()
    inputs["coarse"], inputs["queue_coarse"] = torch.full((B,), -1), torch.full((Q,), -1)
    value, gradient = value_and_gradient(loss, inputs)
    assert value.isfinite()
    assert gradient.isfinite().all()


class _LargestTensor(TorchDispatchMode):
    """Elements of the largest tensor that any operation returns."""

    elements = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple) else (result,):
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


def test_large_batches_never_hold_the_whole_relation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_numerics, "CHUNK_ELEMENTS", 2**14)
    embeddings = torch.randn(512, 8, requires_grad=True)
    queue = F.normalize(torch.randn(1024, 8))
    labels, queue_labels = torch.arange(512) % 7, torch.arange(1024) % 7
    with _LargestTensor() as largest:
        supcon_loss(embeddings, labels, temperature=0.1).backward()
        maskcon_loss(
            embeddings,
            queue[:512],
            queue,
            labels,
            queue_labels,
            temperature=0.1,
            soft_temperature=0.1,
            weight=1.0,
        ).backward()
        nnclr_loss(queue[:512], embeddings, queue, temperature=0.1).backward()
    assert largest.elements <= 2**14 + 16  # own keys stand beside the queue


@each_loss
@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_temperature_is_checked(loss: Loss, temperature: float) -> None:
    with raises("out_of_range"):
        loss(_inputs(), temperature)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": torch.zeros(B, D, dtype=torch.long)}, "query must be floats"),
        ({"query": torch.zeros(B)}, "query must be floats"),
        ({"key": torch.zeros(B + 1, D)}, r"key must be floats of shape \(6, 4\)"),
        ({"queue": torch.zeros(Q, D + 1)}, r"queue must be floats of shape \(n, 4\)"),
        ({"coarse": torch.zeros(B)}, "coarse must be integers"),
        ({"queue_coarse": torch.zeros(Q + 1, dtype=torch.long)}, r"queue_coarse must be integers of shape \(9,\)"),
        ({"mask": torch.ones(B, Q, dtype=torch.bool)}, r"candidate_mask must be booleans .* \(6, 10\)"),
        ({"mask": torch.ones(B, 1 + Q)}, "candidate_mask must be booleans"),
    ],
)
def test_shapes_are_checked(change: dict[str, Tensor], message: str) -> None:
    with pytest.raises(UserError, match=message):
        _maskcon(_inputs(torch.float32) | change, 0.1)


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_weight_is_checked(weight: float) -> None:
    x = _inputs()
    with raises("out_of_range"):
        grafit_loss(x["query"], x["key"], x["queue"], x["coarse"], x["queue_coarse"], temperature=0.1, weight=weight)


def test_errors_name_the_argument() -> None:
    x = _inputs()
    with raises("wrong_shape"):
        nnclr_loss(x["query"], x["query"][:2], x["queue"], temperature=0.1)
    with raises("wrong_shape"):
        maskcon_relation(x["coarse"], x["queue"], x["coarse"], x["queue_coarse"], soft_temperature=0.1, weight=1.0)
