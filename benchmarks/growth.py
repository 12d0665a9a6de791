"""How CPU seconds and peak memory grow with the number of samples, each run in a fresh process.

    python benchmarks/growth.py [--rows 10000 100000 1000000] [--runs check fit-maskcon embed ...] [--columns 32]

The data are a Parquet table of vectors with an id, a coarse and a fine label and a split. ``seconds`` are CPU seconds
without imports; ``peak`` is the process's peak resident memory (Linux); ``a row`` is what it grew by since a run on
2,000 rows, less the samples themselves (float32) and the result, divided by the number of rows. ``fit-METHOD`` stops
after the first step. The model that embeds, predicts and discovers is a small one, trained on the first 2,000 rows.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

FITS = ("maskcon", "scgm", "mlcl", "sclre", "self-classifier", "mixed")
RUNS = ("check", *(f"fit-{method}" for method in FITS), "embed", "export", "predict", "recall", "discover")


def write_table(folder: Path, rows: int, columns: int) -> Path:
    """The table of so many rows, written once."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = folder / f"rows-{rows}-{columns}.parquet"
    if file.exists():
        return file
    generator = np.random.default_rng(0)
    fine = generator.integers(0, 200, rows)
    centres = generator.normal(size=(200, columns)).astype(np.float32)
    table: dict[str, Any] = {"id": pa.array(np.char.add("sample-", np.arange(rows).astype("U9")))}
    table["coarse"] = pa.DictionaryArray.from_arrays(fine // 10, [f"kind {c}" for c in range(20)]).cast(pa.string())
    table["fine"] = pa.DictionaryArray.from_arrays(fine, [f"species {c}" for c in range(200)]).cast(pa.string())
    split = (generator.random(rows) < 0.2).astype(np.int64)
    table["split"] = pa.DictionaryArray.from_arrays(split, ["train", "test"]).cast(pa.string())
    for column in range(columns):
        noise = generator.normal(size=rows).astype(np.float32)
        table[f"x{column}"] = centres[fine, column] + noise
    pq.write_table(pa.table(table), file)
    return file


def small_run(folder: Path, columns: int) -> Path:
    """A run of ``mixed``, which embeds, predicts and has no subclasses of its own."""
    import regrain

    out = folder / f"run-{columns}"
    if not out.exists():
        file = write_table(folder, 2000, columns)
        regrain.fit("mixed", file, levels=["coarse"], encoder="mlp", epochs=1, out=out, device="cpu")
    return out


def work(run: str, file: Path, trained: Path, scratch: Path) -> int:
    """One run; gives the bytes of its result."""
    import regrain
    from regrain.data import check
    from regrain.errors import Stopped

    if run == "check":
        check(file, levels=["coarse", "fine"])
    elif run.startswith("fit-"):
        stop = threading.Event()
        stop.set()
        levels = ["coarse", "fine"] if run in ("fit-mixed", "fit-mlcl") else ["coarse"]
        with contextlib.suppress(Stopped):
            regrain.fit(
                run.removeprefix("fit-"), file, levels=levels, encoder="mlp", out=scratch / "run", interrupt=stop,
                device="cpu", settings={"epochs": 2, "batch_size": 256},
            )  # fmt: skip
    elif run == "embed":
        return regrain.embed(trained, file).nbytes
    elif run == "export":
        regrain.export_embeddings(trained, scratch / "vectors.parquet", file)
    elif run == "predict":
        return int(regrain.predict(trained, file, scratch / "classes.parquet").memory_usage(deep=True).sum())
    elif run == "recall":
        regrain.evaluate(trained, protocols=["recall"], data=file, split="test")
    else:
        regrain.discover(trained, file)
    return 0


def measure(run: str, rows: int, columns: int, folder: Path) -> None:
    """Do one run in this process, and print its figures as JSON."""
    import lightning  # noqa: F401
    import pandas  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import sklearn.cluster  # noqa: F401
    import torch

    import regrain.verbs  # noqa: F401

    torch.set_num_threads(1)
    file, trained = write_table(folder, rows, columns), folder / f"run-{columns}"
    with tempfile.TemporaryDirectory() as scratch:
        work(run, write_table(folder, 2000, columns), trained, Path(scratch))  # what is imported and compiled once
    with tempfile.TemporaryDirectory() as scratch:
        Path("/proc/self/clear_refs").write_text("5")  # what was the peak so far, the parent's too, counts no more
        before, started = resident("VmRSS"), time.process_time()
        result = work(run, file, trained, Path(scratch))
        seconds = time.process_time() - started
        peak = resident("VmHWM")
    grown = peak - before - 4 * rows * columns - result
    figures = {"run": run, "rows": rows, "seconds": round(seconds, 2), "peak_mb": peak >> 20}
    print(json.dumps(figures | {"bytes_a_row": max(0, round(grown / rows))}))


def resident(kind: str) -> int:
    """Bytes of resident memory of this process as Linux says: ``VmRSS`` now, ``VmHWM`` at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{kind}:"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--runs", nargs="+", default=list(RUNS), choices=RUNS)
    parser.add_argument("--columns", type=int, default=32)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "regrain-growth")
    parser.add_argument("--json", action="store_true", help="print a line of JSON a run")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    if asked.here:
        measure(asked.runs[0], asked.rows[0], asked.columns, asked.folder)
        return
    small_run(asked.folder, asked.columns)
    for rows in asked.rows:
        write_table(asked.folder, rows, asked.columns)
    if not asked.json:
        print(f"{'run':20} {'rows':>10} {'seconds':>8} {'peak MB':>8} {'bytes a row':>12}")
    for run in asked.runs:
        for rows in asked.rows:
            with tempfile.TemporaryDirectory() as cache:
                command = [sys.executable, __file__, "--here", "--runs", run, "--rows", str(rows)]
                command += ["--columns", str(asked.columns), "--folder", str(asked.folder)]
                environment = {**os.environ, "REGRAIN_CACHE": cache}
                done = subprocess.run(command, capture_output=True, text=True, env=environment)
            if done.returncode:
                sys.exit(f"{run} on {rows} rows failed: {done.stderr.strip().splitlines()[-1]}")
            line = done.stdout.strip().splitlines()[-1]
            found = json.loads(line)
            table = f"{run:20} {rows:>10} {found['seconds']:>8} {found['peak_mb']:>8} {found['bytes_a_row']:>12}"
            print(line if asked.json else table, flush=True)


if __name__ == "__main__":
    main()
