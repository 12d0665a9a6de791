"""Balanced transport of many samples: time and memory against a plain float64 Sinkhorn loop, and at ImageNet's size.

    python benchmarks/sinkhorn.py                                # 100,000 x 500, sharpness 25
    python benchmarks/sinkhorn.py --samples 20000 --clusters 100
    python benchmarks/sinkhorn.py --large                        # 1,300,000 x 500, three iterations, memory

Both stop at the same error of the cluster marginal. The loop is the textbook's in its stable form: potentials f and g,
one logsumexp over each axis an iteration; `--loop-seconds` ends it early, and then the ratio is a lower bound. Scores
are SCGM's: log p(z|v,y) of embeddings scattered around random directions. Target: 10 times the loop's speed.
"""

from __future__ import annotations

import argparse
import resource
import time
import warnings

import numpy as np
import torch
from torch.nn import functional

from regrain.objectives import scgm_log_joint, sinkhorn_potentials

WIDTH, SUPERCLASSES, SHARPNESS = 128, 20, 25.0


def log_scores(samples: int, clusters: int) -> torch.Tensor:
    """log P (n, r) in float32, made in chunks."""
    generator = torch.Generator().manual_seed(0)
    means = functional.normalize(torch.randn(clusters, WIDTH, generator=generator), dim=1)
    superclass_means = functional.normalize(torch.randn(SUPERCLASSES, WIDTH, generator=generator), dim=1)
    scores = torch.empty(samples, clusters)
    for start in range(0, samples, 50_000):
        rows = scores[start : start + 50_000]
        subclass = torch.randint(0, clusters, (len(rows),), generator=generator)
        embedding = means[subclass] + 0.06 * torch.randn(len(rows), WIDTH, generator=generator)
        coarse = subclass % SUPERCLASSES
        rows.copy_(scgm_log_joint(embedding, coarse, means, superclass_means, variance=0.1))
    return scores


def error_of(scores: torch.Tensor, potentials: torch.Tensor) -> float:
    """Sum of the deviations of the column sums of the plan from equal ones, in float64."""
    sums = torch.zeros(scores.shape[1], dtype=torch.float64)
    for rows in scores.split(50_000):
        sums += (SHARPNESS * rows.double() + potentials).softmax(dim=1).sum(dim=0)
    return float((sums / len(scores) - 1 / scores.shape[1]).abs().sum())


def loop(scores: np.ndarray, tolerance: float, seconds: float) -> tuple[float, int, float]:
    """(seconds, iterations, error) of the textbook's iteration."""
    n, r = scores.shape
    start = time.perf_counter()
    kernel = SHARPNESS * scores.astype(np.float64)
    g = np.zeros(r)
    iterations, error = 0, np.inf
    while error >= tolerance and time.perf_counter() - start < seconds:
        shifted = kernel + g
        largest = shifted.max(axis=1)
        f = -np.log(n) - largest - np.log(np.exp(shifted - largest[:, None]).sum(axis=1))
        shifted = kernel + f[:, None]
        largest = shifted.max(axis=0)
        columns = largest + np.log(np.exp(shifted - largest).sum(axis=0))
        error = np.abs(np.exp(columns + g) - 1 / r).sum()
        g = -np.log(r) - columns
        iterations += 1
    return time.perf_counter() - start, iterations, float(error)


def peak() -> float:
    """Largest resident memory of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--clusters", type=int, default=500)
    parser.add_argument("--tolerance", type=float, default=1e-3)
    parser.add_argument("--loop-seconds", type=float, default=300.0)
    parser.add_argument("--large", action="store_true")
    options = parser.parse_args()
    samples, clusters = (1_300_000, 500) if options.large else (options.samples, options.clusters)
    scores = log_scores(samples, clusters)
    size = scores.numel() * scores.element_size() / 2**30
    print(f"{samples} x {clusters}, sharpness {SHARPNESS:g}; the scores are {size:.2f} GB; peak {peak():.2f} GB")

    iterations = 3 if options.large else 100
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # three iterations do not suffice
        potentials = sinkhorn_potentials(
            scores, sharpness=SHARPNESS, tolerance=options.tolerance, max_iterations=iterations
        )
    ours = time.perf_counter() - start
    print(f"ours: {ours:.1f} s, error {error_of(scores, potentials):.1e}; peak {peak():.2f} GB")
    if options.large:
        return
    theirs, count, error = loop(scores.numpy(), options.tolerance, options.loop_seconds)
    bound = "" if error < options.tolerance else ", stopped early: the ratio is a lower bound"
    print(f"loop: {theirs:.1f} s, {count} iterations, error {error:.1e}{bound}; peak {peak():.2f} GB")
    print(f"ratio {theirs / ours:.1f} (target 10)")


if __name__ == "__main__":
    main()
