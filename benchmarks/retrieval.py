"""Recall@K within one set of embeddings, against faiss-cpu (flat, inner product) and scikit-learn (brute force).

    python benchmarks/retrieval.py                   # 60,000 x 512, two threads: minutes
    python benchmarks/retrieval.py --size 10000

All are exact. Target: no slower than faiss. The runs alternate and the best of each counts, as other programs on the
machine disturb.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable

import numpy as np

KS = (1, 2, 5, 10)


def make_set(size: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors around 100 centres, and their classes."""
    random = np.random.default_rng(0)
    labels = random.integers(100, size=size)
    vectors = random.normal(size=(100, width))[labels] + 4 * random.normal(size=(size, width))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), labels


def recall_from(index: np.ndarray, labels: np.ndarray) -> dict[int, float]:
    """Recall@K from each query's neighbours (n, at least max K + 1), the query itself removed by its index."""
    others = index != np.arange(len(index))[:, None]
    keep = others & (others.cumsum(axis=1) <= max(KS))
    same = labels[index[keep].reshape(len(index), max(KS))] == labels[:, None]
    return {k: float(same[:, :k].any(axis=1).mean()) for k in KS}


def main() -> None:
    """Time the three in turn and print their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=60_000, help="embeddings in the set")
    parser.add_argument("--width", type=int, default=512, help="dimensions of an embedding")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--without", nargs="*", default=[], help="peers to leave out: faiss, scikit-learn")
    arguments = parser.parse_args()
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = str(arguments.threads)  # before the libraries that read it are imported
    try:
        import faiss
    except ImportError:
        sys.exit("the peer is missing: pip install faiss-cpu")
    import torch
    from sklearn.neighbors import NearestNeighbors

    from regrain.metrics import recall_at_k

    torch.set_num_threads(arguments.threads)
    faiss.omp_set_num_threads(arguments.threads)
    vectors, labels = make_set(arguments.size, arguments.width)

    def ours() -> dict[int, float]:
        return recall_at_k(vectors, labels, KS)

    def flat() -> dict[int, float]:
        index = faiss.IndexFlatIP(arguments.width)
        index.add(vectors)
        return recall_from(index.search(vectors, max(KS) + 1)[1], labels)

    def brute() -> dict[int, float]:
        search = NearestNeighbors(n_neighbors=max(KS) + 1, algorithm="brute", metric="cosine").fit(vectors)
        return recall_from(search.kneighbors(vectors, return_distance=False), labels)

    contestants: dict[str, Callable[[], dict[int, float]]] = {"regrain": ours, "faiss": flat, "scikit-learn": brute}
    best: dict[str, float] = {}
    for repeat in range(arguments.repeats):
        for name, contestant in contestants.items():
            if name in arguments.without:
                continue
            start = time.perf_counter()
            recall = contestant()
            best[name] = min(best.get(name, float("inf")), time.perf_counter() - start)
            if repeat == 0:
                print(f"{name:<14} recall {recall}")
    for name, seconds in best.items():
        print(f"{name:<14}{seconds:>9.2f} s   {best['regrain'] / seconds:.2f} = regrain / {name} (target: at most 1)")


if __name__ == "__main__":
    main()
