"""Everything that only a GPU can tell, in twelve minutes: pieces in the order of their worth, a JSON file after each.

    python benchmarks/gpu.py pack [--root ../shared/data]        # once, where the data are: 57 MB in runs/gpu/data
    PYTHONPATH=src python benchmarks/gpu.py run                  # on the machine with the GPU; goes on where it stopped

Nothing is fetched: the folder runs/gpu/data goes along. CIFAR-10 is the JPEG copy; CIFAR-100 is re-encoded as WebP of
quality 95, which loses a little, so its figures are near those of the original and not the same. `--tiny --device cpu`
is a dry run of every piece.
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

HERE = Path(__file__).resolve().parent
PUBLISHED = {"cifar100": 65.52, "cifartoy": 90.28}
"""Recall@1 of MaskCon (Feng and Patras, CVPR 2023, tables 1 and 2), from ImageNet weights and 200 epochs."""

BF16_PEAK = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L4": 121e12, "L40S": 362e12}
"""Dense bf16 operations a second, by the makers' data sheets."""


@dataclass(frozen=True)
class Settings:
    """What the pieces share."""

    data: Path
    out: Path
    device: str
    tiny: bool
    started: float
    seconds: float

    @property
    def encoder(self) -> str:
        return "conv4" if self.tiny else "resnet18"

    @property
    def batch_size(self) -> int:
        return 32 if self.tiny else 128


def pack(root: Path, out: Path) -> None:
    """Write what the pieces need of the data: encoded images, and labels at both levels."""
    import pyarrow.parquet as parquet

    from regrain.data.taxonomies import grouping

    out.mkdir(parents=True, exist_ok=True)
    over = {fine: above[0] for fine, above in grouping("cifartoy_good")["classes"].items()}
    for name in ("cifar10", "cifar100"):
        images: list[bytes] = []
        columns: dict[str, list[str]] = {"coarse": [], "fine": [], "split": []}
        for split in ("train", "test"):
            table = parquet.read_table(root / name / f"{split}.parquet")
            images += [_webp(cell) if name == "cifar100" else cell for cell in table["image"].to_pylist()]
            columns["fine"] += table["label"].to_pylist()
            columns["split"] += [split] * len(table)
            if name == "cifar100":
                columns["coarse"] += table["superclass"].to_pylist()
        if name == "cifar10":
            kept = [row for row, fine in enumerate(columns["fine"]) if fine in over]
            images = [images[row] for row in kept]
            columns = {key: [values[row] for row in kept] for key, values in columns.items() if values}
            columns["coarse"] = [over[fine] for fine in columns["fine"]]
        write_packed(out / f"{'cifartoy' if name == 'cifar10' else name}.npz", images, columns)
    print(f"{sum(file.stat().st_size for file in out.iterdir()) / 1e6:.1f} MB in {out}")


def _webp(image: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(image)).convert("RGB").save(buffer, "WEBP", quality=95)
    return buffer.getvalue()


def write_packed(file: Path, images: list[bytes], columns: dict[str, list[str]]) -> None:
    """Encoded images one after the other, where each ends, and columns of labels."""
    ends = np.cumsum([len(image) for image in images])
    np.savez_compressed(  # small JPEG files are half headers, all alike
        file, images=np.frombuffer(b"".join(images), np.uint8), ends=ends,
        **{name: np.array(values) for name, values in columns.items()},
    )  # fmt: skip


def read_packed(file: Path, *, tiny: bool) -> Any:
    """The images, decoded, with both levels of labels and the published split."""
    from regrain.data.dataset import Dataset
    from regrain.data.samples import TensorSamples
    from regrain.labels import Labels

    found = dict(np.load(file))
    rows = np.arange(len(found["ends"]))
    if tiny:
        rows = np.concatenate([rows[found["split"] == split][:96] for split in ("train", "test")])
    starts = np.concatenate([[0], found["ends"][:-1]])

    def decoded(row: int) -> np.ndarray:
        encoded = found["images"][starts[row] : found["ends"][row]].tobytes()
        return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")).transpose(2, 0, 1)

    with ThreadPoolExecutor() as pool:
        images = torch.from_numpy(np.stack(list(pool.map(decoded, rows))))
    columns = {level: found[level][rows].tolist() for level in ("coarse", "fine")}
    return Dataset(
        TensorSamples(images, "image"), Labels.from_columns(columns), np.array([str(row) for row in rows]),
        name=file.stem, splits=found["split"][rows],
    )  # fmt: skip


# -- pieces: each takes the settings and returns what the file is to say -----------------------------------------------


def environment(settings: Settings) -> dict[str, Any]:
    """Versions, and the chip."""
    found: dict[str, Any] = {"python": platform.python_version()}
    for package in ("torch", "torchvision", "timm", "lightning", "scikit-learn", "numpy", "pillow"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    if settings.device == "cuda":
        found |= {"chip": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    return found


def checks(settings: Settings) -> dict[str, Any]:
    """(a) The tests that need a GPU: a resumed training equals a whole one, two steps of every method, views."""
    if settings.device != "cuda":
        return {"left out": "these tests skip without a GPU"}
    files = ["tests/training/test_on_gpu.py", "tests/views/test_image.py", "tests/views/test_random.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "gpu or cuda or device", *files]
    done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, timeout=240, check=False)
    return {"passed": done.returncode == 0, "told": (done.stdout + done.stderr)[-4000:]}


def steps(settings: Settings) -> dict[str, Any]:
    """(b) Samples a second of a MaskCon step, eager, compiled and in CUDA graphs, and of the usual way."""
    from step import CLASSES, SIZE, our_steps, usual_steps
    from torch.utils.flop_counter import FlopCounterMode

    from regrain.encoders import build_encoder

    torch.manual_seed(0)
    batch, device, count = settings.batch_size, settings.device, 2 if settings.tiny else 60
    images = torch.randint(0, 256, (batch * 16, 3, SIZE, SIZE), dtype=torch.uint8)
    labels = torch.randint(0, CLASSES, (len(images),))

    def encoder() -> Any:
        return build_encoder(settings.encoder, modality="image", sample_shape=(3, SIZE, SIZE), seed=0)

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder()(torch.zeros(1, 3, SIZE, SIZE))
    operations = 4 * counter.get_total_flops()  # forward and backward of the query, forward of the key
    ways: dict[str, Callable[[], Iterator[None]]] = {
        "eager": lambda: our_steps(encoder(), images, labels, batch, device),
        "usual": lambda: usual_steps(encoder(), images, labels, batch, 0 if settings.tiny else 8, device),
    }
    if not settings.tiny:
        ways["compiled"] = lambda: our_steps(encoder(), images, labels, batch, device, "default")
        ways["graphed"] = lambda: our_steps(encoder(), images, labels, batch, device, "reduce-overhead")
    found: dict[str, Any] = {"operations a sample": operations, "batch": batch}
    for name, start in ways.items():
        try:
            found[name] = _speed(start(), count, batch, device)
        except Exception as error:  # the other ways still count
            found[name] = {"error": repr(error)[:500]}
            continue
        for chip, peak in BF16_PEAK.items():
            if device == "cuda" and chip in torch.cuda.get_device_name():
                found[name]["share of bf16 peak"] = found[name]["samples a second"] * operations / peak
                break
    return found


def _speed(ways: Iterator[None], count: int, batch: int, device: str) -> dict[str, Any]:
    """The median of five rounds, after a warm-up in which graphs are made; a round is waited for once."""
    for _ in range(max(1, count // 6)):
        next(ways)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(5):
        _wait(device)
        start = time.perf_counter()
        for _ in range(count):
            next(ways)
        _wait(device)
        seconds.append((time.perf_counter() - start) / count)
    peak = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else None
    return {"samples a second": batch / statistics.median(seconds), "peak memory, MB": peak}


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def trained(settings: Settings, method: str, data: str, seconds: float) -> dict[str, Any]:
    """(c) A training from random weights, as long as there is time for, and recall@1 of the hidden classes."""
    import regrain
    from regrain.metrics import recall_at_k

    dataset = read_packed(settings.data / f"{data}.npz", tiny=settings.tiny)
    folder = settings.out / f"{method}-{data}"
    if (folder / "recipe.yaml").exists():  # cut off, in the training or after it
        run = regrain.Run.open(folder, device=settings.device)
        if not run.folder.finished:
            run = regrain.resume(folder, dataset, device=settings.device)
    else:
        speed = known(settings)["steps"]["eager"]["samples a second"]
        count = int((dataset.splits == "train").sum())
        epochs = 1 if settings.tiny else max(1, min(200, int(0.8 * seconds * speed / count)))
        given = {"epochs": epochs, "batch_size": settings.batch_size}
        run = regrain.fit(method, dataset, out=folder, encoder=settings.encoder, device=settings.device, settings=given)
    test = dataset.splits == "test"
    fine = dataset.labels.codes[torch.from_numpy(test), -1]
    recall = recall_at_k(run.embed(dataset, split="test"), fine, ks=[1])[1]
    return {
        "epochs": run.recipe["training"]["epochs"],
        "seconds": sum(row["seconds"] for row in run.folder.read_metrics()),
        "recall@1": 100 * recall,
        "published, from ImageNet weights": PUBLISHED[data] if method == "maskcon" else None,
    }


def embedding(settings: Settings) -> dict[str, Any]:
    """(d) Images a second of `embed`, from the raw images in memory to float32 on the host."""
    import regrain

    run = regrain.Run.open(settings.out / "maskcon-cifar100", device=settings.device)
    dataset = read_packed(settings.data / "cifar100.npz", tiny=settings.tiny)
    run.embed(dataset, split="test")
    start = time.perf_counter()
    count = len(run.embed(dataset, split="train"))
    return {"images a second": count / (time.perf_counter() - start), "images": count}


def search(settings: Settings) -> dict[str, Any]:
    """(e) Balanced transport and nearest neighbours of a million samples."""
    from regrain.metrics import nearest_neighbours
    from regrain.objectives import sinkhorn_potentials

    rows, clusters, queries = (2000, 20, 200) if settings.tiny else (1_000_000, 500, 100_000)
    generator = torch.Generator().manual_seed(0)
    means = functional.normalize(torch.randn(clusters, 128, generator=generator), dim=1).to(settings.device)
    noise = torch.randn(rows, 128, generator=generator).to(settings.device)
    vectors = functional.normalize(means[torch.arange(rows, device=noise.device) % clusters] + 0.06 * noise, dim=1)
    scores = (vectors @ means.T / 0.1).log_softmax(dim=1)

    def timed(task: Callable[[], Tensor | tuple[Tensor, ...]]) -> float:
        _wait(settings.device)
        start = time.perf_counter()
        task()
        _wait(settings.device)
        return time.perf_counter() - start

    return {
        "rows": rows,
        "transport, seconds": timed(lambda: sinkhorn_potentials(scores, sharpness=25.0, tolerance=1e-4)),
        "20 neighbours, seconds": timed(lambda: nearest_neighbours(vectors[:queries], vectors, 20, exclude_self=False)),
        "clusters": clusters,
        "queries": queries,
    }


PIECES: dict[str, tuple[Callable[[Settings], dict[str, Any]], float]] = {
    "environment": (environment, 5),
    "checks": (checks, 90),
    "steps": (steps, 120),
    "maskcon cifar100": (lambda settings: trained(settings, "maskcon", "cifar100", 210), 60),
    "maskcon cifartoy": (lambda settings: trained(settings, "maskcon", "cifartoy", 80), 40),
    "sup-ce cifar100": (lambda settings: trained(settings, "sup-ce", "cifar100", 70), 40),
    "embed": (embedding, 20),
    "search": (search, 40),
}
"""In the order of worth: the piece, and the seconds below which it is not begun."""


def known(settings: Settings) -> dict[str, Any]:
    """What earlier pieces found."""
    file = settings.out / "gpu.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}


def run_pieces(settings: Settings) -> None:
    """Run what has no result yet, while there is time."""
    settings.out.mkdir(parents=True, exist_ok=True)
    for name, (piece, fewest) in PIECES.items():
        found = known(settings)
        left = settings.seconds - (time.monotonic() - settings.started)
        if name in found and "error" not in found[name]:
            continue
        if left < fewest:
            print(f"{name}: left for another time, {left:.0f} s are left")
            continue
        start = time.monotonic()
        try:
            result = piece(settings)
        except Exception:  # the next piece may work
            result = {"error": traceback.format_exc()[-2000:]}
        found[name] = result | {"took": round(time.monotonic() - start, 1)}
        (settings.out / "gpu.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
        print(name, json.dumps(found[name]), flush=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("do", choices=["pack", "run"])
    parser.add_argument("--root", type=Path, default=HERE.parents[1] / "shared" / "data", help="of the data to pack")
    parser.add_argument("--data", type=Path, default=HERE.parent / "runs" / "gpu" / "data")
    parser.add_argument("--out", type=Path, default=HERE.parent / "runs" / "gpu")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--seconds", type=float, default=690, help="no piece begins that would end after these")
    parser.add_argument("--tiny", action="store_true", help="a dry run: few images, a small network")
    given = parser.parse_args(arguments)
    if given.do == "pack":
        pack(given.root, given.data)
        return
    run_pieces(Settings(given.data, given.out, given.device, given.tiny, time.monotonic(), given.seconds))


if __name__ == "__main__":
    main()
