"""Time and peak memory of the contrastive losses (forward and backward), against pytorch-metric-learning.

    python benchmarks/losses.py                # 1024 to 8192 embeddings, queue of 8192, two threads
    python benchmarks/losses.py --sizes 1024 --repeats 50

Every case runs in a process of its own, whose growth in resident memory is the peak given; the best time counts, as
other programs on the machine disturb. Targets: no loss slower than its peer; the chunked form within a quarter of the
memory of the whole.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from regrain.objectives import _numerics, grafit_loss, info_nce_loss, maskcon_loss, supcon_loss

WIDTH, QUEUE, CLASSES = 128, 8192, 20
TEMPERATURE = 0.1
Step = Callable[[], torch.Tensor]


def batch_inputs(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings of which two each share a label, and their labels."""
    return torch.randn(size, WIDTH, requires_grad=True), torch.arange(size) % (size // 2)


def queue_inputs(size: int) -> tuple[torch.Tensor, ...]:
    """Query, key, queue and the coarse labels of batch and queue."""
    key, queue = (F.normalize(torch.randn(n, WIDTH)) for n in (size, QUEUE))
    labels = torch.randint(0, CLASSES, (size,)), torch.randint(0, CLASSES, (QUEUE,))
    return torch.randn(size, WIDTH, requires_grad=True), key, queue, *labels


def supcon(size: int) -> Step:
    """Ours as it is: chunked once the relation is large."""
    embeddings, labels = batch_inputs(size)
    return lambda: supcon_loss(embeddings, labels, temperature=TEMPERATURE)


def supcon_whole(size: int) -> Step:
    """Ours without chunks."""
    _numerics.CHUNK_ELEMENTS = sys.maxsize
    return supcon(size)


def supcon_peer(size: int) -> Step:
    """The peer's SupCon."""
    from pytorch_metric_learning.losses import SupConLoss

    embeddings, labels = batch_inputs(size)
    loss = SupConLoss(temperature=TEMPERATURE)
    return lambda: loss(embeddings, labels)


def info_nce(size: int) -> Step:
    """Ours, own key against the queue."""
    query, key, queue, *_ = queue_inputs(size)
    return lambda: info_nce_loss(query, key, queue, temperature=TEMPERATURE)


def grafit(size: int) -> Step:
    """Ours, same label and self."""
    inputs = queue_inputs(size)
    return lambda: grafit_loss(*inputs, temperature=TEMPERATURE, weight=0.8)


def maskcon(size: int) -> Step:
    """Ours, soft relation (one matrix product more)."""
    inputs = queue_inputs(size)
    return lambda: maskcon_loss(*inputs, temperature=TEMPERATURE, soft_temperature=0.05, weight=0.8)


def queue_peer(name: str, size: int) -> Step:
    """The peer's loss ``name`` over its memory of past embeddings."""
    from pytorch_metric_learning import losses

    query, _, queue, labels, queue_labels = queue_inputs(size)
    if name == "NTXentLoss":  # as in self-supervision: one positive for each query
        labels, queue_labels = torch.arange(size), torch.arange(QUEUE)
    memory = losses.CrossBatchMemory(getattr(losses, name)(temperature=TEMPERATURE), WIDTH, memory_size=QUEUE)
    memory.has_been_filled = True

    def step() -> torch.Tensor:
        """Enters the batch behind the entries that hold its positives, which the last step may have overwritten."""
        memory.embedding_memory, memory.label_memory, memory.queue_idx = queue.clone(), queue_labels.clone(), size
        return memory(query, labels)

    return step


def supcon_queue_peer(size: int) -> Step:
    """The peer's SupCon over its memory."""
    return queue_peer("SupConLoss", size)


def nt_xent_queue_peer(size: int) -> Step:
    """The peer's NT-Xent over its memory: it compares every pair of positives with every pair of negatives."""
    return queue_peer("NTXentLoss", size)


def measure(case: Callable[[int], Step], size: int, repeats: int, threads: int) -> tuple[float, float]:
    """Best time of a forward and backward pass in ms, and growth of the peak resident memory in MB."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    supcon(64)().backward()  # what torch itself sets up on first use
    step = case(size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        step().backward()
        best = min(best, time.perf_counter() - start)
    return 1e3 * best, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    """Measure all cases and print them beside their peer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024, 2048, 4096, 8192], help="embeddings in a batch")
    parser.add_argument("--batch", type=int, default=128, help="batch of the queue losses")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    try:
        import pytorch_metric_learning  # noqa: F401
    except ImportError:
        sys.exit("the peer is missing: pip install --no-deps pytorch-metric-learning")

    def run(case: Callable[[int], Step], size: int, repeats: int) -> tuple[float, float]:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.apply(measure, (case, size, repeats, arguments.threads))

    def compare(size: int, repeats: int, peer: Callable[[int], Step], *ours: Callable[[int], Step]) -> None:
        peer_ms, peer_mb = run(peer, size, repeats)
        print(f"{peer.__name__:<20}{size:>6}{peer_ms:>10.1f}{peer_mb:>8.0f}")
        for case in ours:
            ms, mb = run(case, size, repeats)
            print(f"{case.__name__:<20}{size:>6}{ms:>10.1f}{mb:>8.0f}{ms / peer_ms:>14.3g}{mb / peer_mb:>16.3g}")

    print(f"{'case':<20}{'size':>6}{'ms':>10}{'MB':>8}   time / peer   memory / peer")
    for size in arguments.sizes:
        compare(size, max(3, arguments.repeats * 1024**2 // size**2), supcon_peer, supcon_whole, supcon)
    compare(arguments.batch, arguments.repeats, supcon_queue_peer, grafit, maskcon)
    compare(arguments.batch, 3, nt_xent_queue_peer, info_nce)  # seconds a step


if __name__ == "__main__":
    main()
