"""Recall of the features of EfficientNet-Lite by the side of the view, and how fast they are computed.

Each training image of a data set retrieves its nearest other by cosine of the centred features of the frozen encoder;
the hit is a sample of its finest class. Test images are left alone, so that defaults may follow from these figures.
Images a second are of one thread, by the time that the processor spent.

    python benchmarks/encoder_sizes.py grocery --root data --samples 2000
    python benchmarks/encoder_sizes.py alphabets --split test --sides 96 160 --encoders lite0 raw
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor

import regrain
from regrain.data.dataset import Dataset
from regrain.encoders import build_encoder
from regrain.metrics import retrieval_metrics
from regrain.model import channel_statistics
from regrain.views import ImageViews


@torch.inference_mode()
def features(data: Dataset, name: str, side: int) -> tuple[Tensor, float]:
    """Features (N, width) at a side, and images a second."""
    channels = data.samples.shape[0]
    encoder = build_encoder(name, modality="image", sample_shape=(channels, side, side)).eval()
    mean, std = (encoder.mean, encoder.std) if encoder.mean and encoder.std else channel_statistics(data)
    views = ImageViews(["plain"], size=side, mean=mean, std=std)
    found = []
    started = time.process_time()
    for rows in torch.arange(len(data)).split(32):
        found.append(encoder(views.plain(data.samples.take(rows))))
    return torch.cat(found).float(), len(data) / (time.process_time() - started)


def recall(vectors: Tensor, labels: Tensor) -> float:
    """Recall@1 within the samples, in per cent."""
    hits = retrieval_metrics(vectors - vectors.mean(dim=0), labels, ks=[1]).hits[1]
    return 100 * float(hits.double().mean())


def main() -> None:
    """Print a row for every encoder and side."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--root")
    parser.add_argument("--split", default="train")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--encoders", nargs="+", default=["lite0", "lite1", "lite2"])
    parser.add_argument("--sides", nargs="+", type=int, default=[64, 96, 128, 160, 192, 224])
    given = parser.parse_args()
    torch.set_num_threads(1)
    options = {"root": given.root, "image_size": given.image_size}
    data = regrain.load(given.data, **{name: value for name, value in options.items() if value}).split(given.split)
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[: given.samples].sort().values
    data = data.select(order)
    labels = data.labels.codes[:, -1]
    print(f"{given.data}: {len(data)} images of {given.split} of {data.samples.shape}", flush=True)
    for name in given.encoders:
        for side in [min(data.samples.shape[1:])] if name == "raw" else given.sides:
            vectors, speed = features(data, "identity" if name == "raw" else name, side)
            print(f"| {name} | {side} | {recall(vectors, labels):.1f} | {speed:.0f} |", flush=True)


if __name__ == "__main__":
    main()
