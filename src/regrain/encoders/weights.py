"""Weights from elsewhere: local files, and a quick answer to whether the Hugging Face hub can be asked."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from regrain.errors import UserError, first_line, warn

Model = TypeVar("Model")


def cached_weights(repository: str, filename: str | None) -> str | None:
    """A repository's weights file in the local hub cache, or None.

    Asking for it by path needs no network, where the hub's own download first asks for a newer version.
    """
    from huggingface_hub import try_to_load_from_cache

    found = (
        try_to_load_from_cache(repository, name) for name in (filename or "model.safetensors", "pytorch_model.bin")
    )
    return next((path for path in found if isinstance(path, str)), None)


def why_no_download(repository: str) -> str | None:
    """None when the hub answers for ``repository``, else the reason in one line.

    A download retries for most of a minute before it gives up; this one question is answered at once.
    """
    from huggingface_hub import HfApi

    try:
        HfApi().model_info(repository, timeout=10)
    except Exception as error:  # the hub's HTTP library, and so the exception, has changed from version to version
        return first_line(error)
    return None


@contextmanager
def no_progress_bar() -> Iterator[None]:
    """transformers draws a bar for weights that are read in a tenth of a second."""
    from transformers.utils import logging

    drawn = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if drawn:
            logging.enable_progress_bar()


def from_disk_or_hub(read: Callable[[bool], Model], source: str) -> Model:
    """A model by ``read(local)``: from disk or the hub's cache; only then is the hub asked, and only if it answers.

    Raises
    ------
    OSError, ValueError
        Where it is not to be had.
    """
    with no_progress_bar():
        try:
            return read(True)
        except (OSError, ValueError):
            if Path(source).is_dir():
                raise
        reason = why_no_download(source)
        if reason:
            raise OSError(reason)
        return read(False)


def rebuilt_model(folder: Path, kind: str, read: Callable[[], Model]) -> Model:
    """Return the result of ``read()`` on the configuration that ``save_extra`` wrote into a folder."""
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{folder} lacks the {kind} encoder's configuration; was the model folder copied whole?",
            code="damaged_file",
        )
    try:
        return read()
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder} does not hold a {kind} encoder that transformers can rebuild: {first_line(error)}",
            code="damaged_file",
        ) from error


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file or of a ``torch.save`` checkpoint that holds nothing but tensors.

    Of a folder, its ``model.safetensors``: a run, or a model in the Hugging Face Hub's layout.

    Raises a UserError when the file is absent, unreadable, or needs unpickling of arbitrary objects.
    """
    path = Path(os.path.expanduser(path))
    if path.is_dir():
        inside = [file for file in (path / "model.safetensors", path / "model" / "model.safetensors") if file.is_file()]
        if not inside:
            raise UserError(
                f"{path} is a folder without model.safetensors: neither a run nor a model of the Hub's",
                code="missing_file",
            )
        path = inside[0]
    if not path.is_file():
        raise UserError(
            f"no weights file at {path}; give --weights a .safetensors or .pth file, or leave it out",
            code="missing_file",
        )
    try:
        state = _read(path)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds Python objects beside tensors, which are not unpickled for safety; "
            "save its state_dict alone, best as .safetensors",
            code="damaged_file",
        ) from error
    except Exception as error:  # safetensors and torch each have their own error for a damaged file
        raise UserError(f"{path} is not a readable weights file: {first_line(error)}", code="damaged_file") from error
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(state.get(key), dict):
            state = state[key]
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UserError(f"{path} holds no named tensors; a state_dict is needed", code="damaged_file")
    return tensors


def _read(path: Path) -> dict[str, Any]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    content = torch.load(path, map_location="cpu", weights_only=True)
    return content if isinstance(content, dict) else {}


def load_weights(
    network: nn.Module,
    path: str | Path,
    *,
    first_conv: str | None = None,
    fresh: str | None = None,
    convert: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None,
) -> bool:
    """Load the tensors of a file that fit ``network`` in name and shape, whatever prefix the names carry.

    Heads that the network lacks (a classifier, a projector) are left out.

    Raises a UserError when no parameter fits, or one that does is not made of finite floats.

    Parameters
    ----------
    path : str or Path
        A ``.safetensors`` or ``torch.save`` file.
    first_conv : str, optional
        Name of the first convolution; its weights are adapted when the file's number of input channels differs.
    fresh : str, optional
        Name of a module that may keep its new weights without a warning (a replaced stem).
    convert : callable, optional
        Brings the file's tensors into the network's form, such as position embeddings of another image size.

    Returns
    -------
    bool
        Whether the file holds all of the network: parameters and running statistics.

    Warns
    -----
    RegrainWarning
        When a part of the parameters keeps its initial values.
    """
    wanted = network.state_dict()
    given = _without_prefix(read_weights(path), wanted)
    given = convert(given) if convert is not None else given
    stem = f"{first_conv}.weight"
    if stem in given and stem in wanted and given[stem].ndim == 4 and given[stem].shape[1] != wanted[stem].shape[1]:
        from timm.models import adapt_input_conv

        given[stem] = adapt_input_conv(wanted[stem].shape[1], given[stem])
    matching = {name: value for name, value in given.items() if name in wanted and value.shape == wanted[name].shape}
    for name, value in matching.items():
        if wanted[name].is_floating_point() and not (value.is_floating_point() and bool(value.isfinite().all())):
            odd = "numbers that are not finite" if value.is_floating_point() else f"{value.dtype}, not floats"
            raise UserError(
                f"{path}: {name} holds {odd}: the file is damaged, or no weights of this encoder", code="damaged_file"
            )
    parameters = [name for name, _ in network.named_parameters()]
    missing = [name for name in parameters if name not in matching]
    if len(missing) == len(parameters):
        unexpected = [name for name in given if name not in matching]
        raise UserError(
            f"{path}: none of its {len(given)} tensors fits the encoder; the encoder wants {_few(missing)}, "
            f"the file has {_few(unexpected)}. Is it another architecture?",
            code="damaged_file",
        )
    network.load_state_dict(matching, strict=False)
    missing = [name for name in missing if fresh is None or not name.startswith(f"{fresh}.")]
    if missing:
        warn(
            f"{path}: {len(missing)} of the encoder's {len(parameters)} parameters are absent or of another shape "
            f"and keep their initial values: {_few(missing)}"
        )
    return all(name in matching or name.endswith("num_batches_tracked") for name in wanted)


def _without_prefix(given: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """Strip the prefix ("module.", "encoder_q.", ...) under which most of the wanted names are found."""
    last = list(wanted)[-1]
    prefixes = ["", *(name.removesuffix(last) for name in given if name.endswith(last))]
    best = max(prefixes, key=lambda prefix: sum(prefix + name in given for name in wanted))
    return {name.removeprefix(best): value for name, value in given.items() if name.startswith(best)}


def _few(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
