"""How fast views are made: ours, kornia's, and torchvision's image by image.

    python benchmarks/views.py --threads 2

Two tasks, normalisation included: crop + flip + colour jitter + grey (``jitter``, the preset ``simclr``), and crop +
flip + the AutoAugment policy of CIFAR-10 (``autoaugment``, the preset ``strong``). Ours and kornia start from one uint8
tensor of the batch; torchvision from decoded PIL images, one after the other in this process, and stacks the result.
The contenders take turns and the median over rounds is printed, so that a passing load falls on all of them.

kornia draws one AutoAugment sub-policy for the whole batch: its figure for the second task is for another augmentation.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torchvision import transforms

from regrain.views import ImageViews

TASKS: dict[str, str | dict[str, object]] = {
    "jitter": {"preset": "simclr", "blur_probability": 0.0},
    "autoaugment": "strong",
}
MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
TURN_SECONDS = 0.2
Contender = Callable[[], object]


def ours(task: str, images: torch.Tensor) -> Contender:
    views = ImageViews([TASKS[task]], size=images.shape[-1], mean=MEAN, std=STD)
    ids = torch.arange(len(images))
    return lambda: views(images, ids, epoch=0)


def with_kornia(task: str, images: torch.Tensor) -> Contender | None:
    try:
        import kornia.augmentation as kornia
    except ImportError:
        return None
    size = tuple(images.shape[2:])
    colour = {
        "jitter": [kornia.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8), kornia.RandomGrayscale(p=0.2)],
        "autoaugment": [kornia.auto.AutoAugment("cifar10")],
    }
    pipeline = torch.nn.Sequential(
        kornia.RandomResizedCrop(size, scale=(0.2, 1.0)),
        kornia.RandomHorizontalFlip(),
        *colour[task],
        kornia.Normalize(torch.tensor(MEAN), torch.tensor(STD)),
    )
    return lambda: pipeline(images.float() / 255)


def with_torchvision(task: str, images: torch.Tensor) -> Contender:
    colour = {
        "jitter": [
            transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            transforms.RandomGrayscale(p=0.2),
        ],
        "autoaugment": [transforms.AutoAugment(transforms.AutoAugmentPolicy.CIFAR10, fill=[128.0] * 3)],
    }
    pipeline = transforms.Compose(
        [
            transforms.RandomResizedCrop(images.shape[-1], scale=(0.2, 1.0)),
            transforms.RandomHorizontalFlip(),
            *colour[task],
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    decoded = [transforms.functional.to_pil_image(image) for image in images]
    return lambda: torch.stack([pipeline(image) for image in decoded])


def median_seconds(contenders: dict[str, Contender], rounds: int) -> dict[str, float]:
    """The median over rounds of the time of a call; a turn lasts a fifth of a second, and the first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds + 1):
        for name, call in contenders.items():
            calls, start = 0, time.perf_counter()
            while (elapsed := time.perf_counter() - start) < TURN_SECONDS:
                call()
                calls += 1
            times[name].append(elapsed / calls)
    return {name: statistics.median(seconds[1:]) for name, seconds in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    # glibc gives memory back to the system after every step until a large block has been freed once, as any training
    # step does; so that it is in that state for all contenders:
    torch.ones(31 * 2**18)
    images = torch.randint(0, 256, (arguments.batch, 3, arguments.size, arguments.size), dtype=torch.uint8)
    for task in TASKS:
        contenders = {"regrain": ours(task, images), "torchvision": with_torchvision(task, images)}
        kornia = with_kornia(task, images)
        if kornia is None:
            print("kornia is not installed (pip install kornia): left out")
        else:
            contenders["kornia"] = kornia
        seconds = median_seconds(contenders, arguments.rounds)
        for name, duration in seconds.items():
            ratio = duration / seconds["regrain"]
            print(f"{task:12s} {name:12s} {arguments.batch / duration:10,.0f} images/s   regrain is {ratio:5.1f} x")


if __name__ == "__main__":
    main()
