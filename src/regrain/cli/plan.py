"""``plan``: what a training of many samples on many GPUs needs, by arithmetic that docs/scale.md explains."""

from __future__ import annotations

import json
import math
from typing import Any

from regrain.cli.terminal import say
from regrain.errors import UserError

_INDEX_BYTES = 24
_ROW_BYTES = 200
_DECODES = 110.0
_DECODED_FASTER = 2.67
_TRANSPORT_FLOPS = 50e12
_SEARCH_FLOPS = 800e12


def needs(
    samples: float,
    *,
    gpus: int,
    gpus_a_machine: int,
    epochs: int,
    sample_bytes: float,
    samples_per_second: float,
    width: int,
    subclasses: int,
    parameters: float,
) -> dict[str, float]:
    """Memory in bytes, network in bytes a second, and times in seconds; every formula is in docs/scale.md.

    Examples
    --------
    >>> found = needs(1e8, gpus=64, gpus_a_machine=8, epochs=100, sample_bytes=1e5, samples_per_second=1085,
    ...     width=2048, subclasses=1000, parameters=2.5e7)
    >>> round(found["epoch"] / 60), round(found["network a machine"] / 1e9, 2), round(found["index a machine"] / 1e9, 1)
    (24, 0.87, 2.4)
    """
    machines = math.ceil(gpus / gpus_a_machine)
    own = min(gpus, gpus_a_machine)
    epoch = samples / (gpus * samples_per_second)
    scan = epoch / _DECODED_FASTER
    return {
        "samples on disk": samples * sample_bytes,
        "index a machine": samples * _INDEX_BYTES,
        "rows in memory, a machine": samples * _ROW_BYTES * own,
        "weights, gradients, momentum and twin, a GPU": 16 * parameters,
        "embeddings of the E-step, a GPU": 4 * samples * width / gpus,
        "network a machine": own * samples_per_second * sample_bytes,
        "decoding cores a machine": own * samples_per_second / _DECODES,
        "machines": machines,
        "epoch": epoch,
        "E-step, looking at every sample": scan,
        "E-step, one pass of the transport": 2 * samples * subclasses**2 / (gpus * _TRANSPORT_FLOPS),
        "training": epochs * epoch,
        "embed": scan,
        "nearest neighbours, all of all": 2 * samples**2 * width / (gpus * _SEARCH_FLOPS),
        "nearest neighbours, 100,000 drawn of all": 2 * min(samples, 1e5) * samples * width / (gpus * _SEARCH_FLOPS),
    }


def plan(
    *,
    samples: float,
    gpus: int = 1,
    gpus_a_machine: int = 8,
    epochs: int = 100,
    sample_bytes: float = 1e5,
    samples_per_second: float = 1085.0,
    width: int = 2048,
    subclasses: int = 1000,
    parameters: float = 2.5e7,
    as_json: bool = False,
) -> None:
    """Print what a training needs of memory, network and time, by arithmetic; docs/scale.md has the formulas.

    Parameters
    ----------
    samples : float
        How many samples, such as 1e8.
    gpus : int
        How many GPUs, on all machines.
    gpus_a_machine : int
        How many of them a machine has.
    epochs : int
        Passes over the samples.
    sample_bytes : float
        Bytes of a sample as it is stored, such as 1e5 for a photo.
    samples_per_second : float
        Samples that a GPU trains on in a second: metrics.csv of a short run says it. The default is that of a ResNet-50
        with two views of 224 pixels on an H100.
    width : int
        Width of an embedding.
    subclasses : int
        Number of subclasses, for the E-step of scgm and sela.
    parameters : float
        Number of weights of the encoder.
    as_json : bool
        Print JSON.

    Raises
    ------
    UserError
        For numbers that are not positive.
    """
    given: dict[str, Any] = {
        "samples": samples, "gpus": gpus, "gpus_a_machine": gpus_a_machine, "epochs": epochs,
        "sample_bytes": sample_bytes, "samples_per_second": samples_per_second, "width": width,
        "subclasses": subclasses, "parameters": parameters,
    }  # fmt: skip
    for name, value in given.items():
        if not 0 < value < math.inf:
            raise UserError(f"{name} is a positive number; got {value}", code="out_of_range")
    found = needs(given.pop("samples"), **given)
    if as_json:
        say(json.dumps({"samples": samples, **given, **found}, indent=1))
        return
    for name, value in found.items():
        say(f"{name:45} {_shown(name, value)}")


def _shown(name: str, value: float) -> str:
    """A number in the unit that its name says.

    Examples
    --------
    >>> _shown("epoch", 1440), _shown("index a machine", 1.6e9), _shown("network a machine", 8.7e8)
    ('24 min', '1.6 GB', '870 MB/s')
    """
    if name.endswith(("machines", "cores a machine")):
        return f"{math.ceil(value)}"
    if name in ("epoch", "training", "embed") or name.startswith(("E-step,", "nearest")):
        for unit, length in (("days", 86400), ("h", 3600), ("min", 60), ("s", 1)):
            if value >= 2 * length or unit == "s":
                return f"{value / length:.3g} {unit}"
    for unit, size in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if value >= size or unit == "MB":
            return f"{value / size:.3g} {unit}{'/s' if name.startswith('network') else ''}"
    raise AssertionError(name)
