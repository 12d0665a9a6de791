"""A whole MaskCon step (views, both encoders, loss, optimiser) against the same step written the usual way.

The usual way: PIL augmentations per sample in a DataLoader, float32, contiguous tensors, a queue updated by hand. Both
run in this process one after the other, several times in turn; the ratio of the medians counts.

    python benchmarks/step.py [--encoder resnet18-w16] [--batches 20] [--threads 2]

Target: 3 times.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Iterator

import numpy as np
import torch
import torchvision.transforms as transforms
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision.transforms import AutoAugmentPolicy

from regrain.data.dataset import Batch, Dataset
from regrain.data.samples import TensorSamples
from regrain.encoders import build_encoder
from regrain.encoders.heads import projector
from regrain.labels import Labels
from regrain.methods import MaskCon
from regrain.training.device import resolve_precision
from regrain.training.loader import Loader
from regrain.training.scan import in_pinned_memory
from regrain.views import ImageViews

SIZE, CLASSES, QUEUE = 32, 20, 8192
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


class Pictures(TorchDataset[tuple[Tensor, Tensor, int]]):
    """The usual per-sample pipeline: MaskCon's strong and weak views by PIL."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images = [Image.fromarray(np.asarray(image.permute(1, 2, 0))) for image in images]
        self.labels = labels.tolist()
        crop = [transforms.RandomResizedCrop(SIZE, (0.2, 1.0)), transforms.RandomHorizontalFlip()]
        finish = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
        self.strong = transforms.Compose([*crop, transforms.AutoAugment(AutoAugmentPolicy.CIFAR10), *finish])
        self.weak = transforms.Compose([*crop, *finish])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        return self.strong(self.images[index]), self.weak(self.images[index]), self.labels[index]


def usual_steps(
    encoder: nn.Module, images: Tensor, labels: Tensor, batch_size: int, workers: int, device: str = "cpu"
) -> Iterator[None]:
    """MaskCon as research code writes it; one step per next()."""
    network = nn.Sequential(encoder, projector(encoder.width, 512, 128)).to(device)
    twin = copy.deepcopy(network).requires_grad_(False)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4)
    queue = functional.normalize(torch.randn(QUEUE, 128, device=device), dim=1)
    queue_labels = torch.randint(0, CLASSES, (QUEUE,), device=device)
    place = 0
    loader = DataLoader(
        Pictures(images, labels), batch_size=batch_size, shuffle=True, num_workers=workers, drop_last=True,
        pin_memory=device != "cpu", persistent_workers=workers > 0,
    )  # fmt: skip
    while True:
        for batch in loader:
            strong, weak, coarse = (part.to(device, non_blocking=True) for part in batch)
            query = functional.normalize(network(strong), dim=1)
            with torch.no_grad():
                key = functional.normalize(twin(weak), dim=1)
                same = (coarse[:, None] == queue_labels).float()
                soft = (key @ queue.T / 0.05).exp() * same
                soft = soft / soft.sum(dim=1, keepdim=True)
                soft = soft / soft.max(dim=1, keepdim=True).values
                relation = torch.cat([torch.ones(len(key), 1, device=device), soft], dim=1)
                relation = relation / relation.sum(dim=1, keepdim=True)
            logits = torch.cat([(query * key).sum(dim=1, keepdim=True), query @ queue.T], dim=1) / 0.1
            loss = -(relation * functional.log_softmax(logits, dim=1)).sum(dim=1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                for mine, theirs in zip(twin.parameters(), network.parameters(), strict=True):
                    mine.mul_(0.99).add_(theirs, alpha=0.01)
                queue[place : place + len(key)] = key
                queue_labels[place : place + len(key)] = coarse
                place = (place + len(key)) % QUEUE
            yield


def our_steps(
    encoder: nn.Module, images: Tensor, labels: Tensor, batch_size: int, device: str = "cpu", mode: str | None = None
) -> Iterator[None]:
    """The same by regrain's parts, without a trainer; one step per next(). ``mode``: of ``torch.compile``, if any."""
    names = np.array([str(i) for i in range(len(images))])
    data = Dataset(TensorSamples(images, "image"), Labels.from_codes(labels), names)
    method = MaskCon(encoder, [CLASSES], queue_size=QUEUE).to(device, memory_format=torch.channels_last)
    views = ImageViews(["strong", "weak"], size=SIZE, mean=MEAN, std=STD).to(device)
    if mode is not None:
        for network in (method.encoder, method.projector, method.twin.network):
            network.compile(mode=mode, dynamic=False)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4, fused=True)
    keys = functional.normalize(torch.randn(QUEUE, 128, device=device), dim=1)
    ids = -1 - torch.arange(QUEUE, device=device)
    method.queue.stage(keys, ids, torch.randint(0, CLASSES, (QUEUE, 1), device=device))
    method.queue.commit()
    bf16 = resolve_precision("auto", "cuda" if device == "cuda" else "cpu") == "bf16"
    loader = Loader(data, batch_size=batch_size, seed=0)
    while True:
        for parts in loader:
            if device == "cuda":
                torch.compiler.cudagraph_mark_step_begin()
                parts = tuple(in_pinned_memory(part) for part in parts)
            raw, coarse, keys = (part.to(device, non_blocking=True) for part in parts)
            batch = Batch(views(raw, keys, loader.epoch), coarse, keys)
            with torch.autocast(device, torch.bfloat16, enabled=bf16):
                loss = method.losses(batch)["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            method.after_step()
            yield
        loader.epoch += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", nargs="+", default=["resnet18-w16", "conv4"])
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=0, help="worker processes of the usual way")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    images = torch.randint(0, 256, (options.batch_size * options.batches, 3, SIZE, SIZE), dtype=torch.uint8)
    labels = torch.randint(0, CLASSES, (len(images),))
    for name in options.encoder:
        encoder = build_encoder(name, modality="image", sample_shape=(3, SIZE, SIZE), seed=0)
        ways = {
            "usual": usual_steps(copy.deepcopy(encoder), images, labels, options.batch_size, options.workers),
            "regrain": our_steps(encoder, images, labels, options.batch_size),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for steps in ways.values():
            next(steps)  # warm
        for _ in range(options.rounds):
            for way, steps in ways.items():
                for _ in range(max(1, options.batches // options.rounds)):
                    start = time.perf_counter()
                    next(steps)
                    seconds[way].append(time.perf_counter() - start)
        medians = {way: statistics.median(values) for way, values in seconds.items()}
        ratio = medians["usual"] / medians["regrain"]
        speeds = ", ".join(f"{way} {options.batch_size / median:.0f} images/s" for way, median in medians.items())
        print(f"{name}: {speeds}; {ratio:.1f} times (target 3)")


if __name__ == "__main__":
    main()
