"""The files of a run folder. Written to a temporary name and renamed; a JSON of a newer schema is refused by name."""

from __future__ import annotations

import csv
import functools
import json
import os
import platform
import secrets
import shutil
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from regrain.errors import UserError
from regrain.labels import Labels, Taxonomy

__all__ = [
    "SCHEMA",
    "RunFolder",
    "labels_from_json",
    "labels_to_json",
    "library_versions",
    "read_tensors",
    "replace_file",
    "sync",
    "write_tensors",
    "write_text",
]

SCHEMA = 1
"""Version of the JSON files written here."""

_FILES = (
    "recipe.yaml",
    "versions.json",
    "labels.json",
    "metrics.csv",
    "visits.csv",
    "state.json",
    "evaluation.json",
    "answers.json",
    "card.md",
    "report.html",
)
_FOLDERS = ("checkpoints", "model", "embeddings", "discovery", "tensorboard", "report", "export")
_LIBRARIES = ("regrain", "torch", "torchvision", "timm", "lightning", "numpy", "scikit-learn", "sentence-transformers")


def replace_file(out: Path, write: Callable[[Path], object], *, durable: bool = False) -> None:
    """Let ``write`` write to a temporary name beside ``out``, and rename that; what fails leaves nothing behind.

    Threads and processes that write the same file do not disturb each other: the last rename wins. A durable file is on
    disk, its name too, before this returns; that asks for POSIX.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        write(temporary)
        if durable:
            sync(temporary)
        temporary.replace(out)
        if durable:
            sync(out.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(out: Path, text: str) -> None:
    """Write a text by :func:`replace_file`."""
    replace_file(out, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_tensors(out: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file by :func:`replace_file`."""
    from safetensors.torch import save_file

    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    replace_file(out, lambda temporary: save_file(whole, temporary))


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU; a UserError where it is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except FileNotFoundError:
        raise UserError(f"{file} is missing: copy the whole folder, or make it again") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is damaged ({error}): copy it again, or make it again") from None


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's names, are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def library_versions() -> dict[str, str | None]:
    """Versions of Python and of the libraries that a result depends on; None where one is not installed."""
    versions: dict[str, str | None] = {"python": platform.python_version(), "platform": platform.platform()}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def labels_to_json(labels: Labels) -> dict[str, Any]:
    """Levels, classes and taxonomy, without the samples' codes."""
    return {
        "levels": list(labels.levels),
        "classes": [list(names) for names in labels.classes],
        "taxonomy": None if labels.taxonomy is None else labels.taxonomy.to_json(),
    }


def labels_from_json(content: Mapping[str, Any]) -> Labels:
    """Labels of no samples, from :func:`labels_to_json`."""
    empty = Labels.empty(0)
    levels = tuple(content["levels"])
    taxonomy = content["taxonomy"]
    return Labels(
        empty.codes.expand(0, len(levels)) if not levels else empty.codes.new_empty(0, len(levels)),
        levels,
        tuple(tuple(names) for names in content["classes"]),
        None if taxonomy is None else Taxonomy.from_json(taxonomy),
    )


class RunFolder:
    """One run on disk; see the design's list of files.

    Parameters
    ----------
    path : path
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @classmethod
    def create(cls, path: str | Path, *, overwrite: bool = False) -> RunFolder:
        """A folder for a new run.

        Raises
        ------
        UserError
            If a run lies there and ``overwrite`` is not set, or if the folder holds other things: those are never
            deleted.
        """
        run = cls(path)
        if run.path.exists() and not run.path.is_dir():
            raise UserError(f"{run.path} is a file; a run needs a folder of its own")
        if run.path.is_dir() and any(run.path.iterdir()):
            if not run.is_run and not run._is_begun:
                raise UserError(f"{run.path} is not empty and holds no run; choose another --out")
            if not overwrite and run.is_run:
                advice = "" if run.finished else f", continue it with `regrain resume {run.path}`"
                raise UserError(
                    f"{run.path} already holds a run: choose another --out{advice}, or replace it with --overwrite"
                )
            run._clear()
        run.path.mkdir(parents=True, exist_ok=True)
        return run

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """The folder of a run that exists.

        Raises
        ------
        UserError
            If there is none.
        """
        run = cls(path)
        if not run.is_run:
            what = "holds no run (no recipe.yaml and versions.json in it)" if run.path.is_dir() else "does not exist"
            raise UserError(f"{run.path} {what}; runs are made by `regrain fit`")
        return run

    @property
    def is_run(self) -> bool:
        """Whether regrain wrote this folder, which a file called recipe.yaml does not prove."""
        return self.recipe_file.exists() and "versions" in self.read_json("versions.json", missing={})

    @property
    def _is_begun(self) -> bool:
        """Whether nothing lies here but the first files of a run that was stopped before it had a recipe."""
        lying = {entry.name for entry in self.path.iterdir()}
        return lying <= {"versions.json", "labels.json"} and "versions" in self.read_json("versions.json", missing={})

    @property
    def recipe_file(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def checkpoint_file(self) -> Path:
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def model_folder(self) -> Path:
        return self.path / "model"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def finished(self) -> bool:
        """Whether training came to its end."""
        state = self.read_json("state.json", missing={"finished": False})
        return bool(state["finished"])

    def write_json(self, name: str, content: Mapping[str, Any], *, durable: bool = False) -> None:
        """Write ``name`` with the schema number; ``durable`` as in :func:`replace_file`."""
        text = json.dumps({"schema": SCHEMA, **content}, indent=1, ensure_ascii=False)
        self._write(name, lambda file: file.write_text(text + "\n", encoding="utf-8"), durable=durable)

    def read_json(self, name: str, *, missing: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Read ``name``; ``missing`` is given back where there is no such file.

        Raises
        ------
        UserError
            If the file is missing (and ``missing`` is None), damaged, or of a newer schema.
        """
        file = self.path / name
        if not file.exists():
            if missing is not None:
                return dict(missing)
            raise UserError(f"{file} is missing: the run has not come that far, or the file was removed")
        try:
            content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{file} is damaged: {error}") from None
        if not isinstance(content, dict):
            raise UserError(f"{file} is damaged: a mapping was expected")
        if content.get("schema", 0) > SCHEMA:
            raise UserError(
                f"{file} has schema {content['schema']}; this regrain reads up to {SCHEMA}: install a newer regrain"
            )
        return content

    def write_recipe(self, recipe: Mapping[str, Any]) -> None:
        """Write the resolved recipe."""
        text = yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True)
        self._write("recipe.yaml", lambda file: file.write_text(text, encoding="utf-8"))

    def read_recipe(self) -> dict[str, Any]:
        """Read the resolved recipe."""
        try:
            content = yaml.safe_load(self.recipe_file.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            told = " ".join(str(error).split())
            raise UserError(f"{self.recipe_file} is no YAML any more: mend it, or train anew ({told})") from None
        if not isinstance(content, dict):
            raise UserError(f"{self.recipe_file} is damaged: a mapping was expected")
        return content

    def write_text(self, name: str, text: str) -> None:
        """Write a text file."""
        self._write(name, lambda file: file.write_text(text, encoding="utf-8"))

    def append_metrics(self, row: Mapping[str, float]) -> None:
        """Put one epoch's row behind those of earlier epochs; later ones, from before a resume, go."""
        rows: list[Mapping[str, Any]] = [r for r in self._metric_rows() if float(r["epoch"]) < row["epoch"]]
        rows.append(row)
        columns = list(dict.fromkeys(name for r in rows for name in r))

        def write(file: Path) -> None:
            with file.open("w", newline="", encoding="utf-8") as stream:
                writer = csv.DictWriter(stream, columns)
                writer.writeheader()
                writer.writerows(rows)

        self._write("metrics.csv", write)

    def read_metrics(self) -> list[dict[str, float]]:
        """One row an epoch."""
        return [{name: float(v) for name, v in row.items() if v not in ("", None)} for row in self._metric_rows()]

    def _metric_rows(self) -> list[dict[str, str]]:
        if not self.metrics_file.exists():
            return []
        with self.metrics_file.open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))

    def write_model(
        self, state: Mapping[str, Tensor], config: Mapping[str, Any], save_extra: Callable[[Path], None]
    ) -> None:
        """Write ``model/``: weights, config, and what ``save_extra`` puts beside them."""
        from safetensors.torch import save_file

        new, old = self.path / "model.new", self.path / "model.old"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        save_file(
            {name: value.detach().cpu().contiguous().clone() for name, value in state.items()},
            new / "model.safetensors",
        )
        (new / "config.json").write_text(json.dumps({"schema": SCHEMA, **config}, indent=1) + "\n", encoding="utf-8")
        save_extra(new)
        if self.model_folder.exists():
            self.model_folder.rename(old)
        new.rename(self.model_folder)
        shutil.rmtree(old, ignore_errors=True)

    def copy_model(self, source: RunFolder, save_extra: Callable[[Path], None]) -> None:
        """Another run's ``model/``, with what ``save_extra`` puts into it, and what says how that was trained."""
        new = self.path / "model.new"
        shutil.rmtree(new, ignore_errors=True)
        shutil.copytree(source.model_folder, new)
        save_extra(new)
        new.rename(self.model_folder)
        for name in ("labels.json", "state.json", "recipe.yaml"):
            self._write(name, functools.partial(shutil.copyfile, source.path / name))

    def _write(self, name: str, write: Callable[[Path], Any], *, durable: bool = False) -> None:
        replace_file(self.path / name, write, durable=durable)

    def _clear(self) -> None:
        """Remove a run's own files, and nothing else."""
        for name in _FILES:
            (self.path / name).unlink(missing_ok=True)
        for name in _FOLDERS:
            shutil.rmtree(self.path / name, ignore_errors=True)
