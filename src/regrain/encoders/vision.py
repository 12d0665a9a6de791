"""Image encoders from transformers: DINOv2 and DINOv3, CLIP, SigLIP and others, by folder or hub id."""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from regrain.errors import UserError, first_line

from .base import RANDOM, Encoder
from .image import output_width, per_channel
from .weights import from_disk_or_hub, rebuilt_model

_EXTRA_FOLDER = "image_encoder"
_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")


def is_vision_source(name: str) -> bool:
    """Whether a name of an image encoder is a folder or a hub id, and so transformers'."""
    if name.startswith(("hf-hub:", "hf_hub:", "local-dir:")):  # timm's ways to say so
        return False
    return "/" in name or (Path(os.path.expanduser(name)) / "config.json").is_file()


def trained_side(name: str) -> int | None:
    """The side in pixels that a model was trained at, as its configuration says; None where it is not at hand."""
    transformers = _transformers(name)
    try:
        config = transformers.AutoConfig.from_pretrained(
            os.path.expanduser(name), local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError):
        return None
    side = getattr(getattr(config, "vision_config", config), "image_size", None)
    return side if isinstance(side, int) else None


class VisionEncoder(Encoder):
    """A pretrained vision transformer with its own pooling; of a model with two towers, the one for images.

    The embedding is the model's pooled output; where that comes from a layer on top of the first token, which many
    published weights lack, it is the first token itself. Nothing is scaled to unit length.

    Raises a UserError when transformers is not installed, the model is neither local nor to be had from the hub, or it
    cannot take samples of this shape.

    Parameters
    ----------
    name_or_path : str
        A folder, or a hub id such as "facebook/dinov2-small".
    sample_shape : (C, H, W)
        Shape of the views, of 3 channels, or of one that is repeated. Position embeddings are interpolated where the
        model can do so.
    folder : str or Path, optional
        Where ``save_extra`` wrote: rebuilds the structure from there, with random weights.
    mean, std : sequence of C floats, optional
        The normalisation that the weights expect. Default: what the model's image processor says, where a folder has
        one.
    """

    modality = "image"
    halves = True

    def __init__(
        self,
        name_or_path: str,
        sample_shape: Sequence[int],
        *,
        folder: str | Path | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        channels = sample_shape[0]
        if channels not in (1, 3):
            raise UserError(
                f"'{name_or_path}' takes images of 3 channels, or of one; these have {channels}", code="wrong_shape"
            )
        if folder is None:
            whole, processor, self.origin = _pretrained(name_or_path)
        else:
            whole, processor, self.origin = _rebuilt(Path(folder) / _EXTRA_FOLDER), {}, RANDOM
        self.freeze_statistics = folder is None
        self.config = whole.config
        self.net = getattr(whole, "vision_model", whole).float()
        pooler = getattr(self.net, "pooler", None)
        if pooler is not None and any(True for _ in pooler.parameters()):
            self.net.pooler = None
        for part, parameter in self.net.named_parameters():
            if part.endswith("mask_token"):  # of pretraining: weights without gradients stop distributed training
                parameter.requires_grad_(False)
        self._options = (
            {"interpolate_pos_encoding": True}
            if "interpolate_pos_encoding" in inspect.signature(self.net.forward).parameters
            else {}
        )
        mean, std = mean or processor.get("image_mean"), std or processor.get("image_std")
        self.mean = per_channel(mean, channels) if mean else None
        self.std = per_channel(std, channels) if std else None
        self.width = output_width(self, name_or_path, sample_shape)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (B, C, H, W) -> embeddings (B, width)."""
        output = self.net(pixel_values=x.expand(-1, 3, -1, -1), **self._options)
        pooled: Tensor | None = output.pooler_output
        return (output.last_hidden_state[:, 0] if pooled is None else pooled.flatten(1)).float()

    def save_extra(self, folder: str | Path) -> None:
        """Write the model's configuration under ``folder``; no weights."""
        self.config.save_pretrained(Path(folder) / _EXTRA_FOLDER)


def _pretrained(name: str) -> tuple[Any, dict[str, Any], str]:
    """The model, what its image processor says, and the origin of its weights: from disk or cache, else the hub."""
    transformers = _transformers(name)
    source = str(Path(os.path.expanduser(name))) if Path(os.path.expanduser(name)).is_dir() else name
    origin = f"image model in {name}" if source != name or Path(name).is_dir() else f"{name} from the Hugging Face hub"
    try:
        return *from_disk_or_hub(lambda local: _read(transformers, source, local=local), source), origin
    except (OSError, ValueError) as error:
        raise UserError(
            f"could not load the image encoder '{name}': {first_line(error)}. Give a local folder as the encoder's "
            "name, or a model of timm's with --weights FILE",
            code="not_reachable",
        ) from error


def _read(transformers: Any, source: str, *, local: bool) -> tuple[Any, dict[str, Any]]:
    processor: dict[str, Any] = {}
    if not Path(source).is_dir() or any((Path(source) / name).is_file() for name in _PROCESSOR_FILES):
        processor, _ = transformers.BaseImageProcessor.get_image_processor_dict(source, local_files_only=local)
    return transformers.AutoModel.from_pretrained(source, local_files_only=local, trust_remote_code=False), processor


def _rebuilt(folder: Path) -> Any:
    transformers = _transformers(str(folder))

    def read() -> Any:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return transformers.AutoModel.from_config(config, trust_remote_code=False)

    return rebuilt_model(folder, "image", read)


def _transformers(name: str) -> Any:
    try:
        import transformers
    except ImportError as error:
        raise UserError(
            f"the image encoder '{name}' needs transformers: pip install 'regrain[text]', or take a model of timm's",
            code="missing_package",
        ) from error
    return transformers
