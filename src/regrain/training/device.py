"""The device and the precision of a computation."""

from __future__ import annotations

import os
from typing import Literal

import torch

from regrain.errors import UserError

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "bf16", "fp16"]


def resolve_device(device: Device) -> Literal["cpu", "cuda"]:
    """The device that ``auto`` means here; a UserError where CUDA is asked for and absent.

    Of several processes on a machine, each gets a GPU of its own for ``cuda``, as far as there are enough.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda was asked for, but torch sees no CUDA device; use --device cpu or auto")
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"no device '{device}': choose from auto, cpu, cuda", code="unknown_name")
    if device == "cpu" or not torch.cuda.is_available():
        return "cpu"
    if "LOCAL_RANK" in os.environ:  # of torchrun, and of Lightning's own processes
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    return "cuda"


def resolve_precision(precision: Precision, device: Literal["cpu", "cuda"]) -> Literal["float32", "bf16", "fp16"]:
    """The precision that ``auto`` means on a device: bf16 where its arithmetic is fast."""
    if precision == "fp16" and device == "cpu":
        raise UserError("training.precision fp16 crawls on a CPU; use bf16 or float32")
    if precision != "auto":
        return precision
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "float32"
    return "bf16" if getattr(torch.cpu, "_is_avx512_bf16_supported", bool)() else "float32"


def scan_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The type in which encoders compute without gradients, for a run that was trained in ``precision``.

    A run that a GPU has trained in fp16 computes on a CPU as ``auto`` says.

    Examples
    --------
    >>> scan_dtype("float32", torch.device("cpu"))
    torch.float32
    """
    kind: Literal["cpu", "cuda"] = "cuda" if device.type == "cuda" else "cpu"
    chosen = resolve_precision("auto" if precision == "fp16" and kind == "cpu" else precision, kind)
    return {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[chosen]
