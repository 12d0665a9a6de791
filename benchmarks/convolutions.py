"""Why a resnet18-w16 step is not faster: its convolutions one by one, in GFLOP/s, beside a matrix product.

    python benchmarks/convolutions.py [--threads 2] [--batch-size 128]

bf16 in channels-last (what regrain trains in) against float32 (what the usual code trains in), forward and backward.
The last line is how much faster a step's convolutions can be at best than the usual way's: a bound for `step.py`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

LAYERS = [  # input and output channels, side, stride, how often
    (3, 16, 32, 1, 1),
    (16, 16, 32, 1, 4),
    (16, 32, 32, 2, 1),
    (32, 32, 16, 1, 3),
    (32, 64, 16, 2, 1),
    (64, 64, 8, 1, 3),
    (64, 128, 8, 2, 1),
    (128, 128, 4, 1, 3),
]


def seconds(call: Callable[[], object], rounds: int = 9) -> float:
    """Median."""
    call()
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def times(layer: tuple[int, int, int, int, int], batch: int, dtype: torch.dtype, last: bool) -> tuple[float, float]:
    """Forward and backward of one 3x3 convolution; the first layer's input needs no gradient."""
    channels, out, side, stride, _ = layer
    form = torch.channels_last if last else torch.contiguous_format
    x = torch.randn(batch, channels, side, side, dtype=dtype).contiguous(memory_format=form)
    weight = torch.randn(out, channels, 3, 3, dtype=dtype).contiguous(memory_format=form)
    gradient = torch.randn_like(torch.conv2d(x, weight, None, stride, 1))

    def backward() -> tuple[Tensor, ...]:
        wanted = (channels != 3, True, False)
        strides, pads, dilations = (stride, stride), (1, 1), (1, 1)
        result: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
            gradient, x, weight, None, strides, pads, dilations, False, (0, 0), 1, wanted
        )
        return result

    return seconds(lambda: torch.conv2d(x, weight, None, stride, 1)), seconds(backward)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=128)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for dtype in (torch.float32, torch.bfloat16):
        one = torch.randn(2048, 2048, dtype=dtype)
        print(f"matrix product 2048^3, {dtype}: {2 * 2048**3 / seconds(lambda one=one: one @ one) / 1e9:.0f} GFLOP/s")
    total = {"usual": 0.0, "regrain": 0.0}
    for layer in LAYERS:
        channels, out, side, stride, often = layer
        work = 2 * options.batch_size * (side // stride) ** 2 * channels * out * 9 / 1e9
        told = []
        for name, dtype, last in (("usual", torch.float32, False), ("regrain", torch.bfloat16, True)):
            forward, backward = times(layer, options.batch_size, dtype, last)
            total[name] += often * (2 * forward + backward)  # query and key forward, query backward
            parts = 1 if channels == 3 else 2
            told.append(f"{name} forward {work / forward:.0f}, backward {parts * work / backward:.0f} GFLOP/s")
        print(f"{channels:3} -> {out:3}, {side:2} px, stride {stride}, {often} times: {'; '.join(told)}")
    usual, ours = total["usual"], total["regrain"]
    print(f"convolutions of a MaskCon step: {1e3 * usual:.0f} ms and {1e3 * ours:.0f} ms: {usual / ours:.1f} times")


if __name__ == "__main__":
    main()
