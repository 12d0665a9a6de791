"""Training steps with other threads and other waiting, on a quiet machine and beside processes that hold cores.

    python benchmarks/busy.py [--encoder conv4] [--seconds 3] [--rounds 3] [--busy 0 1]

Every way is a process of its own (OpenMP reads its variables once) that takes MaskCon's step of benchmarks/step.py.
They work in turn, several times, and medians are printed. `regrain.cli.machine` chooses between them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
WAYS = {
    "all threads, as torch has it": {"OMP_NUM_THREADS": str(CORES)},
    "all threads, sleeping": {"OMP_NUM_THREADS": str(CORES), "OMP_WAIT_POLICY": "PASSIVE"},
    "one thread less": {"OMP_NUM_THREADS": str(max(1, CORES - 1))},
}


def steps(encoder: str, seconds: float) -> None:
    """For every line on standard input, print images per second of steps taken for a while."""
    import torch
    from step import CLASSES, SIZE, our_steps

    from regrain.encoders import build_encoder

    torch.manual_seed(0)
    images = torch.randint(0, 256, (1024, 3, SIZE, SIZE), dtype=torch.uint8)
    network = build_encoder(encoder, modality="image", sample_shape=(3, SIZE, SIZE), seed=0)
    taken = our_steps(network, images, torch.randint(0, CLASSES, (1024,)), 128)
    next(taken)
    print("ready", flush=True)
    for _ in sys.stdin:
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            next(taken)
            count += 1
        print(128 * count / (time.perf_counter() - start), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="conv4")
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1], help="processes that hold a core each")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        steps(options.encoder, options.seconds)
        return
    command = [sys.executable, __file__, "--one", "--encoder", options.encoder, "--seconds", str(options.seconds)]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    ways: dict[str, subprocess.Popen[str]] = {}
    try:
        for way, variables in WAYS.items():  # one after the other: together they would be each other's busy machine
            ways[way] = subprocess.Popen(
                command, env=inherited | variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
            )
            answer(ways[way])
        for busy in options.busy:
            others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
            found: dict[str, list[float]] = {way: [] for way in ways}
            try:
                for _ in range(options.rounds):
                    for way, process in ways.items():
                        print("go", file=process.stdin, flush=True)
                        found[way].append(float(answer(process)))
            finally:
                for other in others:
                    other.kill()
            for way, values in found.items():
                print(f"beside {busy}: {way:30} {statistics.median(values):7.0f} images/s", flush=True)
    finally:
        for process in ways.values():
            process.kill()


def answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


if __name__ == "__main__":
    main()
