"""The files of a run folder, and who may write them."""

from __future__ import annotations

import csv
import itertools
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, NotRequired

import yaml
from filelock import FileLock, Timeout
from pydantic import AfterValidator
from torch import Tensor
from typing_extensions import TypedDict

from regrain.errors import UserError, not_a_run
from regrain.labels import Labels, Taxonomy
from regrain.spelling import command
from regrain.storage.files import (
    MANIFEST,
    Finite,
    Folder,
    check_form,
    copy_folder,
    is_temporary,
    json_writer,
    make_folder,
    read_csv,
    read_json,
    read_yaml,
    replace_file,
    require_place,
    save_tensors,
    sync,
)

_LOCK = ".lock"
_FILES = (
    *("recipe.yaml", "versions.json", "labels.json", "metrics.csv", "visits.csv", "state.json"),
    *("evaluation.json", "answers.json", "missing.json", "card.md", "report.html"),
)
_MODELS = ("model", "model.new", "model.old")
_FOLDERS = ("checkpoints", *_MODELS, "embeddings", "discovery", "refined", "tensorboard", "report", "export")
_LIBRARIES = ("regrain", "torch", "torchvision", "timm", "lightning", "numpy", "scikit-learn", "sentence-transformers")


def library_versions() -> dict[str, str | None]:
    """Versions of Python and of the libraries that a result depends on; None where one is not installed."""
    versions: dict[str, str | None] = {"python": platform.python_version(), "platform": platform.platform()}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def as_written(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe as a run folder gives it back: tuples are lists.

    Examples
    --------
    >>> as_written({"views": {"presets": ("strong", "weak")}})
    {'views': {'presets': ['strong', 'weak']}}
    """
    return yaml.safe_load(_recipe_text(recipe))


def labels_to_json(labels: Labels) -> dict[str, Any]:
    """Levels, classes and taxonomy, without the samples' codes."""
    return {
        "levels": list(labels.levels),
        "classes": [list(names) for names in labels.classes],
        "taxonomy": None if labels.taxonomy is None else labels.taxonomy.to_json(),
    }


def _skipped(entry: list[Any]) -> list[Any]:
    """Level, class, level above, and the classes there."""
    if len(entry) != 4 or not all(isinstance(n, int) for n in entry[:3]) or not isinstance(entry[3], list):
        raise ValueError("three whole numbers and a list of them were expected")
    if not all(isinstance(n, int) for n in entry[3]):
        raise ValueError("a list of whole numbers was expected")
    return entry


class _TaxonomyForm(TypedDict):
    levels: list[str]
    classes: list[list[str]]
    parents: list[list[list[int]]]
    skipped: NotRequired[list[Annotated[list[Any], AfterValidator(_skipped)]]]


class LabelsForm(TypedDict):
    """The form that :func:`labels_to_json` gives."""

    levels: list[str]
    classes: list[list[str]]
    taxonomy: _TaxonomyForm | None


def labels_from_json(content: Mapping[str, Any], where: object) -> Labels:
    """Labels of no samples, from :func:`labels_to_json`; a UserError, which names ``where``, if they do not fit."""
    levels, classes, taxonomy = content["levels"], content["classes"], content["taxonomy"]
    sound = len(classes) == len(levels) == len(set(levels)) and all(len(set(names)) == len(names) for names in classes)
    if taxonomy is not None:
        sizes = [len(names) for names in classes]
        sound = sound and taxonomy["levels"] == levels and taxonomy["classes"] == classes
        sound = sound and [len(parents) for parents in taxonomy["parents"]] == sizes
        parents = enumerate(taxonomy["parents"])
        pairs = [(at, code, at - 1, above) for at, level in parents for code, above in enumerate(level) if above]
        sound = sound and all(
            0 <= upper < at < len(sizes) and 0 <= code < sizes[at] and all(0 <= p < sizes[upper] for p in above)
            for at, code, upper, above in [*pairs, *taxonomy.get("skipped", [])]
        )
    if not sound:
        raise UserError(
            f"{where} is damaged: its levels, classes and taxonomy do not fit together", code="damaged_file"
        )
    return Labels(
        Labels.empty(0).codes.new_empty(0, len(levels)),
        tuple(levels),
        tuple(tuple(names) for names in classes),
        None if taxonomy is None else Taxonomy.from_json(taxonomy),
    )


class _DataForm(TypedDict):
    source: str | None
    reader: dict[str, Any]
    levels: list[str]
    holdout: float
    roles: dict[str, str]
    fingerprint: str
    labels_fingerprint: str


class _MethodForm(TypedDict):
    name: str


class _ViewsForm(TypedDict):
    presets: list[Any]


class _RecipeForm(TypedDict):
    data: _DataForm
    method: _MethodForm
    encoder: _MethodForm
    views: _ViewsForm
    training: dict[str, Any]
    seed: int


class _StateForm(TypedDict):
    finished: bool


class _VersionsForm(TypedDict):
    versions: dict[str, str | None]


class RunFolder(Folder):
    """One run on disk; see the design's list of files.

    One process at a time writes there: within :meth:`writing`, or for the moment of a single write.

    Parameters
    ----------
    verify : bool, optional
        See :class:`~regrain.storage.files.Folder`.
    """

    def __init__(self, path: str | Path, *, verify: bool | None = None) -> None:
        super().__init__(path, verify=verify)
        self._lock = FileLock(self.path / _LOCK)

    @classmethod
    def open(cls, path: str | Path, *, verify: bool | None = None) -> RunFolder:
        """The folder of a run that exists.

        Raises
        ------
        UserError
            If there is none.
        """
        if not isinstance(path, str | os.PathLike):
            raise UserError(f"a run is opened by the path of its folder; got {type(path).__name__}", code="wrong_shape")
        run = cls(path, verify=verify)
        try:
            found = run.is_run
        except OSError as error:  # a closed folder above it, a name that is too long
            raise UserError(f"{path} cannot be opened: {error.strerror or error}", code="missing_file") from None
        if not found:
            if not run.path.is_dir():
                raise not_a_run(run.path)
            if run._is_listed:
                raise UserError(
                    f"{run.path} was begun and stopped before it had a recipe: give the command that began it again",
                    code="missing_file",
                )
            raise UserError(
                f"{run.path} holds no run (no recipe.yaml and versions.json in it); runs are made by `regrain fit`",
                code="missing_file",
            )
        return run

    @contextmanager
    def writing(self, patience: float = 10.0) -> Iterator[None]:
        """Within it, no other process writes into the run; a process that died leaves no lock behind.

        Parameters
        ----------
        patience : float
            Seconds to wait for another writer.

        Raises
        ------
        UserError
            If another process goes on writing, or the folder holds something that is not a run.
        """
        if self._lock.is_locked:
            yield
            return
        self.require_writable()
        self._require_own()
        make_folder(self.path)
        try:
            self._lock.acquire(timeout=patience)
        except Timeout:
            raise UserError(
                f"{self.path} is in use: another process writes this run. Wait for it, or stop it, or choose another "
                "--out",
                code="not_writable",
            ) from None
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be written to ({error.strerror or error}): {self._other_place}",
                code="not_writable",
            ) from error
        try:
            for file in [*self.path.glob(".*.tmp"), *self.path.glob("*/.*.tmp")]:  # of a writer that was killed
                file.unlink(missing_ok=True)
            yield
        finally:
            self._lock.release()

    def require_writable(self) -> None:
        """Raise a UserError, before anything is computed, where this user may not write into the folder."""
        require_place(self.path, self._other_place)

    @property
    def _other_place(self) -> str:
        return "copy the run to a folder of your own, and use the copy" if self.is_run else "choose another --out"

    def begin(self, *, overwrite: bool = False) -> list[str]:
        """Make room for a new run, within :meth:`writing`; gives sentences for the user.

        An exploration is about the samples and subclasses of the run that is replaced: it is moved aside.

        Raises
        ------
        UserError
            If the folder holds a run and ``overwrite`` is not set, or an exploration of it is open.
        """
        if not overwrite and self.is_run:
            advice = "" if self._is_whole() else f", continue it with `{command('resume', self.path)}`"
            raise UserError(
                f"{self.path} already holds a run: choose another --out{advice}, or replace it with --overwrite",
                code="would_overwrite",
            )
        self._written.clear()
        notices = self._keep_exploration()
        if self.is_run or self._is_listed:
            self._clear()
        return notices

    def _keep_exploration(self) -> list[str]:
        """Move ``explorer/`` to a place where no run finds it."""
        explored = self.path / "explorer"
        if not explored.is_dir():
            return []
        if _is_locked(explored / "journal.jsonl"):
            raise UserError(
                f"{self.path} is in use: a `regrain explore` works on this run. Stop it, or choose another --out",
                code="not_writable",
            )
        number = next(n for n in itertools.count(1) if not (self.path / f"explorer-{n}").exists())
        explored.rename(self.path / f"explorer-{number}")
        sync(self.path)
        return [
            f"what was named and confirmed of the run that was replaced was moved to explorer-{number}/: renamed to "
            "explorer/ it goes on, if the data are the same"
        ]

    def _is_whole(self) -> bool:
        try:
            return self.is_complete
        except UserError:  # damaged, so resuming would not help
            return True

    def _require_own(self) -> None:
        """Refuse a folder that holds something else: it is never written to, and nothing in it is deleted."""
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file; a run needs a folder of its own", code="would_overwrite")
        if not self.path.exists() or self.is_run or self._is_listed:
            return
        others = [e.name for e in self.path.iterdir() if e.name != _LOCK and not is_temporary(e.name)]
        if others and not self._is_first_of(others):
            raise UserError(f"{self.path} is not empty and holds no run; choose another --out", code="would_overwrite")

    def _is_first_of(self, names: list[str]) -> bool:
        """Whether the folder holds only files that a run writes before its recipe."""
        if not {*names} <= {"versions.json", "labels.json"}:
            return False
        try:
            return "versions" in read_json(self.path / "versions.json")
        except UserError:
            return False

    @property
    def is_run(self) -> bool:
        """Whether the folder holds the files that a run begins with; recipe.yaml alone does not prove it."""
        return all((self.path / name).is_file() for name in ("recipe.yaml", "versions.json"))

    @property
    def _is_listed(self) -> bool:
        """Whether there is a manifest of ours, the first file of every run."""
        try:
            return (self.path / MANIFEST).exists() and self._manifest() is not None
        except UserError:
            return False

    @property
    def checkpoint_file(self) -> Path:
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def model_folder(self) -> Path:
        return self.path / "model"

    @property
    def model(self) -> Folder:
        """``model/``, which has a manifest of its own: it is shared as it is."""
        return self.inner("model")

    @property
    def finished(self) -> bool:
        """Whether training came to its end."""
        return bool(self.read_json("state.json", _StateForm, missing={"finished": False})["finished"])

    @property
    def is_complete(self) -> bool:
        """Whether training came to its end, and the model was written."""
        return self.finished and self.model_folder.exists()

    def write(self, writers: Mapping[str, Callable[[Path], object]]) -> None:
        """Write files by name, as :meth:`regrain.storage.files.Folder.write`; other processes wait so long."""
        with self.writing():
            super().write(writers)

    def start(self, recipe: Mapping[str, Any], labels: Labels, *, overwrite: bool = False) -> list[str]:
        """Make room for a run (:meth:`begin`), and write the resolved recipe, the classes, the libraries' versions."""
        notices = self.begin(overwrite=overwrite)
        text = _recipe_text(recipe)
        written = {"recipe.yaml": lambda file: file.write_text(text, encoding="utf-8")}
        self.write({**_versions(), "labels.json": json_writer(labels_to_json(labels)), **written})
        return notices

    def read_recipe(self) -> dict[str, Any]:
        """Read the resolved recipe."""
        return read_yaml(self.checked("recipe.yaml"), _RecipeForm)

    def read_card(self) -> str:
        """The model card; empty where there is none."""
        if not (self.path / "card.md").exists():
            return ""
        return self.checked("card.md").read_text(encoding="utf-8", errors="replace")

    def read_versions(self) -> dict[str, str | None]:
        """Read the library versions that the run was made with."""
        return self.read_json("versions.json", _VersionsForm)["versions"]

    def checked_checkpoint(self) -> Path | None:
        """The last checkpoint; None where there is none, a UserError where it is damaged."""
        if not self.checkpoint_file.exists():
            return None
        file = self.checked("checkpoints/last.ckpt")
        if not self.verify:  # else it is what was written
            import torch

            try:
                torch.load(file, map_location="cpu", weights_only=True, mmap=True)
            except Exception as error:  # PyTorch has a whole choice of them for a damaged file
                raise UserError(f"{file} is damaged: {type(error).__name__}", code="damaged_file") from error
        return file

    def write_checkpoint(self, rows: list[Mapping[str, float]], save: Callable[[Path], object]) -> None:
        """Write ``last.ckpt`` and, with it, the rows of the epochs since the one before."""
        self.write({**self._metrics(rows), "checkpoints/last.ckpt": save})

    def append_metrics(self, row: Mapping[str, float]) -> None:
        """Append an epoch's row, and drop rows of later epochs that an interrupted run left."""
        self.write(self._metrics([row]))

    def _metrics(self, added: list[Mapping[str, float]]) -> dict[str, Callable[[Path], object]]:
        if not added:
            return {}
        first = min(row["epoch"] for row in added)
        rows = [*(row for row in self.read_metrics() if row["epoch"] < first), *added]
        columns = list(dict.fromkeys(name for row in rows for name in row))

        def write(file: Path) -> None:
            with file.open("w", newline="", encoding="utf-8") as stream:
                writer = csv.DictWriter(stream, columns)
                writer.writeheader()
                writer.writerows({name: value for name, value in row.items() if value == value} for row in rows)

        return {"metrics.csv": write}

    def read_metrics(self) -> list[dict[str, float]]:
        """One row an epoch."""
        if not self.metrics_file.exists():
            return []
        file, rows = self.checked("metrics.csv"), []
        for line, cells in enumerate(read_csv(file), 2):
            try:
                row = {name: float(cell) for name, cell in cells.items() if cell}
                check_form(row, dict[str, Finite], f"line {line} of {file}")
            except ValueError as error:
                raise error if isinstance(error, UserError) else UserError(f"{file}: line {line}: {error}") from None
            if "epoch" not in row:
                raise UserError(f"{file} is damaged: line {line} has no epoch", code="damaged_file")
            rows.append({"epoch": int(row["epoch"]), **{name: v for name, v in row.items() if name != "epoch"}})
        return rows

    def write_model(
        self, state: Mapping[str, Tensor], config: Mapping[str, Any], save_extra: Callable[[Path], None]
    ) -> None:
        """Write ``model/``: weights, config, and the files that ``save_extra`` adds."""

        def fill(new: Path) -> None:
            new.mkdir()
            replace_file(new / "model.safetensors", lambda file: save_tensors(file, state))
            replace_file(new / "config.json", json_writer(config))
            save_extra(new)
            names = [str(file.relative_to(new)) for file in new.rglob("*") if file.is_file()]
            Folder(new).seal(names)

        self._put_model(fill)

    def copy_model(self, source: RunFolder, save_extra: Callable[[Folder], None]) -> None:
        """Another run's ``model/``, with what ``save_extra`` puts into it, and what says how that was trained."""

        def fill(new: Path) -> None:
            copy_folder(source.model_folder, new)
            save_extra(Folder(new, verify=source.verify))

        self._put_model(fill)
        copies: dict[str, Callable[[Path], object]] = {}
        for name in ("labels.json", "state.json", "recipe.yaml"):  # the recipe last: with it the folder is a run
            copies[name] = partial(shutil.copyfile, source.checked(name))
        self.write({**_versions(), **copies})

    def _put_model(self, fill: Callable[[Path], None]) -> None:
        place, new, old = self.model_folder, self.path / "model.new", self.path / "model.old"
        with self.writing():
            for folder in (new, old):
                shutil.rmtree(folder, ignore_errors=True)
            try:
                fill(new)
                if place.exists():
                    place.rename(old)
                new.rename(place)
            except OSError as error:
                raise UserError(
                    f"{error.filename or new} could not be written: {error.strerror or error}", code="not_writable"
                ) from error
            finally:
                for folder in (new, old):
                    shutil.rmtree(folder, ignore_errors=True)

    def _clear(self) -> None:
        """Remove a run's own files, and nothing else; whenever that is cut short, the folder is a begun one."""
        self._list({})
        for name in _FILES:
            (self.path / name).unlink(missing_ok=True)
        for name in _FOLDERS:
            shutil.rmtree(self.path / name, ignore_errors=True)


def _is_locked(file: Path) -> bool:
    """Whether another process has a file locked by flock."""
    try:
        import fcntl
    except ImportError:
        return False
    try:
        with file.open("rb") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is none, or its file system has no locks
        return False
    return False


def _versions() -> dict[str, Callable[[Path], object]]:
    return {"versions.json": json_writer({"versions": library_versions()})}


def _recipe_text(recipe: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True)
