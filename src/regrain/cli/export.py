"""``export``."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from regrain.cli import options as o
from regrain.cli.terminal import say


class FormatName(StrEnum):
    """What loads the file."""

    timm = "timm"
    torchvision = "torchvision"
    detectron2 = "detectron2"
    safetensors = "safetensors"
    onnx = "onnx"
    hub = "hub"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(export)


def export(
    run: Annotated[Path, typer.Argument(help="A run folder; it keeps its model.")],
    format: Annotated[FormatName, typer.Option("--format", "-f", help="What is to load the file.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="The file to write (hub: the folder); default: in RUN/export. A .pth or .pkl is a pickle.",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
    json_: o.Json = False,
) -> None:
    """Write a RUN's encoder for other software, and say how it is loaded and what it takes.

    timm, torchvision, detectron2: its weights under the names of that framework (detectron2: as a .pth, or .pkl, with
    the configuration that goes with it). safetensors: the weights of any encoder under Regrain's own names. onnx: a
    graph from normalised input to embedding, for batches of any size, checked in onnxruntime
    (`pip install 'regrain[onnx]'`). hub: the whole model as a folder in the Hugging Face Hub's layout, with a model
    card; `regrain.hub.from_pretrained` loads it, and `--weights FOLDER` starts an encoder from it.

    Examples:

    `regrain export runs/photos --format timm`

    `regrain export runs/photos --format detectron2 --out backbone.pth`

    `regrain export runs/photos --format onnx --out photos.onnx --json`
    """
    if format is FormatName.hub:
        _export_to_hub(run, out, overwrite, json_)
        return
    from regrain.verbs.export import export as run_export

    made = run_export(run, out, format=format.value, overwrite=overwrite)
    if json_:
        kept = {
            "out": str(made.path),
            "format": made.format,
            "tensors": made.keys,
            "input": made.input,
            "loading": made.loading,
            "notices": made.notices,
        }
        print(json.dumps(kept, indent=1))
        return
    for notice in made.notices:
        say(f"note      {notice}", err=True)
    say(f"{made.keys} tensors written to {made.path}")
    say(f"input     {made.input}")
    say("load it with")
    say()
    for line in made.loading:
        say(f"    {line}")


def _export_to_hub(run: Path, out: Path | None, overwrite: bool, as_json: bool) -> None:
    from regrain.verbs.export import export as run_export

    place = run_export(run, out, format="hub", overwrite=overwrite).path
    files = sorted(str(file.relative_to(place)) for file in place.rglob("*") if file.is_file())
    if as_json:
        print(json.dumps({"out": str(place), "format": "hub", "files": files}, indent=1))
        return
    say(f"{', '.join(files)} written to {place}")
    say(f"share it with `hf upload OWNER/NAME {place}`; load it with")
    say()
    say("    from regrain.hub import from_pretrained")
    say(f"    model = from_pretrained({str(place)!r})")
