"""How long a training takes, measured before it begins, and which one would be faster."""

from __future__ import annotations

import copy
import shlex
import time

import torch

from regrain.encoders import image, is_pretrained
from regrain.encoders.half import computing_in
from regrain.encoders.text import minilm_is_at_hand
from regrain.errors import warn
from regrain.runs.assemble import Assembly
from regrain.runs.defaults import is_drawing
from regrain.training.device import resolve_precision, scan_dtype
from regrain.training.scan import on_device

_FEW = 5_000
"""Samples below which photos or texts hardly teach an encoder that starts from random weights."""

_EXTRAS = {"image": "vision", "text": "text"}
"""Modality -> the extra of the package that brings a pretrained encoder."""

_WORTH_MEASURING, _WORTH_SAYING, _LONG = 1_000, 60, 3_600
"""Visits of samples, and seconds."""


def announce_time(assembly: Assembly, device: str, processes: int = 1) -> list[str]:
    """Report how long a training will take if it is long or not worthwhile, and name a faster one.

    Warn of hours, and return other sentences as notes.

    ``processes``: those that share the work.
    """
    model, train, options, recipe = assembly.model, assembly.dataset, assembly.options, assembly.recipe
    learns, frozen = not model.method.fit_once, model.backbone is not None
    visits = len(train) * options.epochs if learns else len(train)
    if visits < _WORTH_MEASURING or not (learns or frozen):
        return []
    once, seconds = training_seconds(assembly, device, processes)
    name, source = recipe["encoder"]["name"], shlex.quote(recipe["data"].get("source") or "DATA")
    ready = {"image": "lite", "text": "minilm"}.get(train.modality)
    trained = not frozen and any(p.requires_grad for p in model.method.encoder.parameters())
    offers = ready is not None and trained and not is_drawing(train)
    if once > seconds / 2:
        side = recipe["views"].get("size", 0) // 2
        faster = f"--set views.size={side}" if side else "a GPU (--device cuda)"
    elif offers:
        missing = "" if _at_hand(train.modality) else f", after pip install 'regrain[{_EXTRAS[train.modality]}]'"
        faster = f"`regrain fit {recipe['method']['name']} {source} --encoder {ready} --frozen`{missing}"
    else:
        shorter = max(1, int(options.epochs * _LONG / 2 / max(seconds, 1)))
        faster = f"--epochs {shorter}"
    about = f"about {_words(seconds)}"
    origin = model.config["encoder"]["origin"]
    if offers and len(train) < _FEW and not is_pretrained(origin) and seconds > _WORTH_SAYING:
        text = (
            f"'{name}' starts from random weights and has {len(train)} samples to learn from: training takes {about}, "
            f"and seldom reaches the features of a pretrained encoder; {faster} takes those"
        )
    elif seconds > _LONG:
        most = "nearly all for the features" if once > seconds / 2 else f"{options.epochs} epochs"
        text = f"training takes {about}: {most} of {len(train)} samples; faster is {faster}"
    else:
        return []
    if seconds > _LONG:
        warn(text)
        return []
    return [text]


def training_seconds(assembly: Assembly, device: str, processes: int = 1) -> tuple[float, float]:
    """Estimate the seconds of a frozen encoder's features, and of these and the training together.

    Steps on a few samples are timed on the spot, in a copy: training finds everything as it was.
    """
    of_step, of_features = _measure(assembly, device)
    samples = len(assembly.dataset)
    once = samples * of_features / processes
    steps = 0 if assembly.model.method.fit_once else samples * assembly.options.epochs
    return once, once + steps * of_step / processes


def _at_hand(modality: str) -> bool:
    return image.lite_is_at_hand() if modality == "image" else minilm_is_at_hand()


def _measure(assembly: Assembly, device: str) -> tuple[float, float]:
    """Seconds of a training step, reading included, and of the frozen encoder, for each sample."""
    model, train, options = assembly.model, assembly.dataset, assembly.options
    bf16 = resolve_precision(options.precision, device) == "bf16"  # type: ignore[arg-type]  # a literal
    with torch.random.fork_rng(), torch.enable_grad():
        encoder, views = copy.deepcopy(model.method.encoder).to(device).train(), model.views.to(device)
        backbone = model.backbone
        of_step = of_features = 0.0
        for count in (2, 4, 32):
            count = min(count, len(train))
            rows = torch.arange(count)
            started = time.perf_counter()
            raw = on_device(train.samples.take(rows), torch.device(device))
            between = started
            if backbone is not None:
                with computing_in(scan_dtype(options.precision, torch.device(device)), backbone):
                    raw = model.to(device).backbone_features(raw)
                between = time.perf_counter()
            ids = rows.to(device)
            if model.method.fit_once:
                of_features = (between - started) / count
                continue
            with torch.autocast(device, torch.bfloat16, enabled=bf16):
                outputs = [encoder(view).float().sum() for view in views(raw, ids, 0)]  # heads and losses cost little
            if outputs[0].requires_grad:
                torch.stack(outputs).sum().backward()
            done = time.perf_counter()
            of_step, of_features = (done - between) / count, (between - started) / count
            if count > 2 and done - started > 0.2:  # the first pass warms up
                break
    return of_step, of_features


def _words(seconds: float) -> str:
    """Describe a time in words.

    Examples
    --------
    >>> _words(100), _words(5000), _words(500_000)
    ('2 min', '1.4 h', '5.8 days')
    """
    if seconds < 3_600:
        return f"{max(1, round(seconds / 60))} min"
    return f"{seconds / 3_600:.1f} h" if seconds < 48 * 3_600 else f"{seconds / 86_400:.1f} days"
