"""Guesses about the roles of a table's columns that the user did not name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache

import numpy as np

from regrain.data.cells import LOOKED_AT, SPLITS, Column, Contents, as_floats, different, label_names, spelled
from regrain.data.folder import image_suffixes
from regrain.data.packed import are_different, count_different
from regrain.errors import NoLabelsError, Notable, UserError, examples, python_only
from regrain.labels import Labels, Relation, Taxonomy, missing
from regrain.spelling import counted

_IMAGE_WORDS = ("image", "images", "img", "picture", "photo", "file", "filename", "filepath", "path")
_TEXT_WORDS = (
    "text",
    "sentence",
    "utterance",
    "query",
    "question",
    "review",
    "document",
    "content",
    "message",
    "comment",
    "description",
)
_LABEL_WORDS = (
    "label",
    "class",
    "classes",
    "category",
    "superclass",
    "subclass",
    "subcategory",
    "coarse",
    "fine",
    "target",
    "domain",
    "intent",
    "family",
    "genus",
    "species",
    "alphabet",
    "character",
)
_ROLES = {"level": "a level", "static": "a static feature", "columns": "a feature that changes in time"}
_SPLIT_WORDS = ("split", "subset", "partition")
_GROUP_WORDS = ("group", "subject", "patient", "participant", "person")
_KEY_NAMES = ("id", "uid", "uuid", "key", "sampleid", "imageid")
_INDEX_NAMES = ("index", "unnamed0")  # how a DataFrame's index comes back from a file
_ID_NAMES = (
    *_KEY_NAMES,
    *("file", "filename", "filepath", "path", "imagepath", "image", "img", "picture", "photo"),
    *_INDEX_NAMES,
)
_FEW_SPLITS = 10


class Roles:
    """Role of each column: a feature, a label, a group, an id, a split or a record's key, never two.

    An image's path may also be its id, and a record may be its own group. ``of`` maps columns to roles.
    """

    def __init__(self, where: str, require: Callable[[str, str], str]) -> None:
        self.where, self.require = where, require
        self.of: dict[str, str] = {}
        self._levels: list[str] = []

    def take(self, name: str | None, role: str) -> str | None:
        """Return the column that the user named for a role; a UserError if it does not exist or has another role."""
        if name is None:
            return None
        name = self.require(name, role)
        other = self.of.setdefault(name, role)
        if other == role == "level" and name in self._levels:
            raise UserError(f"{self.where}: column '{name}' is named twice as a level")
        if other != role and {other, role} not in ({"image", "id"}, {"record", "group"}):
            raise UserError(
                f"{self.where}: column '{name}' is named for two roles, {other} and {role}: a column has one; "
                "copy it under another name where it must be both"
            )
        if role == "level":
            self._levels.append(name)
        return name


class Guesses:
    """Guesses about columns; ``messages`` tells the user what was guessed.

    Parameters
    ----------
    where : str
        The table, for messages.
    columns : mapping of name to Column
    contents : callable
        Gives the contents of a column by name.
    declared : sequence of str
        Columns that the source declares to be class labels.
    split_known : bool
        Whether the files already name the split.
    roles : Roles
        Columns that have a role are not guessed about; what is guessed is noted there.
    """

    def __init__(
        self,
        where: str,
        columns: Mapping[str, Column],
        contents: Callable[[str], Contents],
        declared: Sequence[str],
        split_known: bool,
        roles: Roles,
    ) -> None:
        self.where, self.columns, self.contents = where, columns, contents
        self.declared, self.split_known = declared, split_known
        self.roles = roles
        self.messages: list[str] = []

    def _say(self, what: str, names: Iterable[str], role: str) -> None:
        names = list(names)
        for name in names:
            self.roles.of.setdefault(name, role)
        self.messages.append(Notable(f"{what}: column {', '.join(map(repr, names))} (guessed)"))

    @property
    def _free(self) -> list[str]:
        return [name for name in self.columns if name not in self.roles.of]

    def split(self) -> str | None:
        """Find a column whose name says split and whose cells are names of splits.

        One with ``train`` and another of them is taken whatever else it holds: a gap or a slip in it must be seen. One
        with other words is named by a message, and is not a feature.
        """
        for name in self._free if not self.split_known else ():
            if not _has_word(name, _SPLIT_WORDS):
                continue
            cells = {"" if missing(c) else str(c).strip().lower() for c in different(self.columns[name])}
            if (cells and cells <= set(SPLITS)) or ("train" in cells and len(cells & set(SPLITS)) > 1):
                self._say("split", [name], "split")
                return name
            if len(cells) <= _FEW_SPLITS:
                self.roles.of[name] = "unread split"
                held = examples([f"'{cell}'" if cell else "empty cells" for cell in sorted(cells)], 4)
                why = f"is not read as the split, since it holds {held}: write train, val or test"
                self.messages.append(Notable(f"column '{name}' {why}"))
        return None

    def samples(self) -> tuple[str | None, str | None, list[str] | None]:
        """Find the column of images, or of texts, or of vectors; all None if there is none.

        Ids that are image paths are not the samples where there are vectors: embeddings keep the ids of their photos.
        """
        free = self._free
        encoded = [name for name in free if self.contents(name).kind == "bytes"]
        strings = [name for name in free if self.contents(name).kind == "text"]
        vectors = [name for name in free if self.contents(name).kind == "vectors"]
        may_be_files = [name for name in strings if not vectors or _squeezed(name) not in _KEY_NAMES]
        files = [name for name in may_be_files if _are_image_files(self.columns[name])]
        images = sorted(encoded, key=_word_rank(_IMAGE_WORDS)) or sorted(files, key=_word_rank(_IMAGE_WORDS))
        if images:
            self._say("images", images[:1], "image")
            return images[0], None, None
        texts = [name for name in strings if _has_word(name, _TEXT_WORDS)]
        texts = sorted(texts, key=_word_rank(_TEXT_WORDS)) or [n for n in strings if _is_prose(self.columns[n])]
        if texts:
            self._say("texts", texts[:1], "text")
            return None, texts[0], None
        if vectors:
            self._say("vectors", vectors[:1], "columns")
            others = [name for name in free if self.contents(name).kind in ("numbers", "booleans", "vectors")]
            if len(others) > 1 and (beside := [n for n in others if n != vectors[0] and not self._named_apart(n)]):
                self.messages.append(
                    f"not features: {examples(map(repr, beside), 6)} beside the vectors; --columns (columns=[...]) "
                    "names others"
                )
            return None, None, vectors[:1]
        return None, None, None

    def levels(self, relation: Relation, unknown: Sequence[str], *, numeric: bool) -> list[str]:
        """Label columns from coarse to fine: those that nest, all of them for aspects.

        Yes and no is a label unless samples are numbers (``numeric``) and other columns could be labels.
        """
        free = self._free
        texts = ("text", "booleans", "dates")
        countable = [n for n in free if self.contents(n).kind in texts or _has_word(n, _LABEL_WORDS)]
        counts = {name: _distinct(self.columns[name]) for name in {*countable, *self.declared} & set(free)}
        declared = [name for name in free if name in self.declared]
        candidates = declared or [name for name in free if name in counts and self._may_be_labels(name, counts[name])]
        spoken = [
            n for n in candidates if self.contents(n).kind not in ("booleans", "dates") or _has_word(n, _LABEL_WORDS)
        ]
        if numeric and spoken:
            candidates = spoken
        if relation == "aspects" and candidates:
            self._say("levels", candidates, "level")
            return candidates
        candidates = self._without_aliases(sorted(candidates, key=counts.__getitem__))
        attempts = [
            candidates,
            [name for name in candidates if not _has_word(name, _GROUP_WORDS)],
            [name for name in candidates if _has_word(name, _LABEL_WORDS)],
        ]
        for attempt in attempts:
            if attempt and (relation == "paths" or self._nest(attempt, unknown)):
                self._say("levels, coarse to fine", attempt, "level")
                return attempt
        if candidates:
            listed = ", ".join(f"'{name}' ({counted(counts[name], 'class', 'classes')})" for name in candidates)
            raise UserError(
                f"{self.where}: which columns are labels? These could be, but they do not nest: {listed}. Name them "
                "from coarse to fine (--level; levels=[...]), or say that they are aspects that do not nest "
                "(--relation aspects; relation='aspects')"
            )
        listed = examples([f"'{name}' ({count} different values)" for name, count in sorted(counts.items())], 6)
        raise NoLabelsError(
            f"{self.where}: no column looks like labels (few different values, many times each)"
            f"{f', of {listed}' if listed else ''}. Name the label columns from coarse to fine (--level; "
            "levels=[...])" + python_only("; levels=[] reads data without labels")
        )

    def usable(self, names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        """Return the columns that can be features, and the reason why each other one cannot."""
        left: dict[str, str] = {}
        for name in names:
            if name in self.roles.of:
                left[name] = f"is {_ROLES.get(self.roles.of[name], f'the {self.roles.of[name]}')}"
            elif self.contents(name).kind not in ("numbers", "booleans", "vectors"):
                left[name] = self.contents(name).reason
            elif _has_word(name, _GROUP_WORDS):
                left[name] = "is named like a group"
            elif _squeezed(name) in _ID_NAMES:
                left[name] = "is named like an id"
            elif self.contents(name).kind == "numbers" and _counts_rows(self.columns[name]):
                left[name] = "only counts rows"
            elif _has_word(name, _LABEL_WORDS) and self._may_be_labels(name, _distinct(self.columns[name])):
                left[name] = "looks like labels"
        return [name for name in names if name not in left], left

    def numbers(self) -> list[str]:
        """Return all columns of numbers without another role, except labels and row counts."""
        names, left = self.usable(self._free)
        left |= {name: "holds lists of numbers" for name in names if self.contents(name).kind == "vectors"}
        names = [name for name in names if name not in left]
        reasons = examples([f"'{name}' {reason}" for name, reason in left.items()], 6)
        if not names:
            raise UserError(
                f"{self.where} has no column of images, texts or numbers"
                f"{f' ({reasons})' if left else ''}: name one (--image, --text or --columns; image=, "
                "text= or columns=[...])"
            )
        if left:
            self.messages.append(Notable(f"not features: {reasons}"))
        quoted = list(map(repr, names))
        shown = ", ".join(quoted if len(quoted) < 6 else [*quoted[:3], "...", quoted[-1]])
        self.messages.append(Notable(f"features: {len(names)} columns of numbers, {shown} (guessed)"))
        return names

    def group(self) -> str | None:
        """Find a column named like a person or a group, whose values repeat."""
        named = [name for name in self._free if _has_word(name, _GROUP_WORDS)]
        for name in named:
            cells = self.columns[name]
            if self.contents(name).kind in ("text", "numbers") and 2 * _distinct(cells) <= max(4, len(cells)):
                self._say("group", [name], "group")
                return name
        return None

    def identity(self, image: str | None) -> str | None:
        """A column named like an id, without gaps or repetitions; the column of image paths may be one."""
        named = [n for n in [*self._free, *([image] if image else [])] if _squeezed(n) in _ID_NAMES]
        for name in sorted(named, key=lambda n: _ID_NAMES.index(_squeezed(n))):
            cells = self.columns[name]
            kind = self.contents(name).kind
            if kind not in ("text", "numbers", "dates") or any(map(missing, different(cells))):
                continue
            if _squeezed(name) in _INDEX_NAMES and kind == "numbers" and not _are_whole(cells):
                continue
            if are_different(cells, spelled):
                self.roles.of.setdefault(name, "id")
                return name
            self.messages.append(f"column '{name}' repeats values and is not taken for the id")
        return None

    def _named_apart(self, name: str) -> bool:
        """Whether a column's name says that it is not a feature."""
        words = (*_GROUP_WORDS, *_LABEL_WORDS, *_SPLIT_WORDS)
        return _has_word(name, words) or _squeezed(name) in _ID_NAMES

    def _may_be_labels(self, name: str, count: int) -> bool:
        named = _has_word(name, _LABEL_WORDS)
        if _squeezed(name) in _ID_NAMES or _has_word(name, _SPLIT_WORDS):
            return False
        kind = self.contents(name).kind
        if kind == "numbers" and not (named and _are_whole(self.columns[name])):
            return False
        few = max(2, len(self.columns[name]) // 2)
        return kind in ("text", "numbers", "booleans", "dates") and (1 if named else 2) <= count <= few

    def _without_aliases(self, names: list[str]) -> list[str]:
        """Of columns that say the same in other words, such as a class's number and its name, the one with names."""
        kept: list[str] = []
        for name in sorted(names, key=lambda n: self.contents(n).kind == "numbers"):
            if not any(_same_partition(self.columns[name], self.columns[other]) for other in kept):
                kept.append(name)
        return [name for name in names if name in kept]

    def _nest(self, names: list[str], unknown: Sequence[str]) -> bool:
        columns = {name: label_names(self.columns[name], unknown, name, []) for name in names}
        labels = Labels.from_columns(columns, relation="aspects")
        return Taxonomy.from_codes(labels.codes, labels.levels, labels.classes).is_tree


@lru_cache(maxsize=1 << 18)
def _words(name: str) -> list[str]:
    """``imagePath`` and ``image_path`` as ["image", "path"]."""
    return [w.lower() for w in re.split(r"[^A-Za-z0-9]+", re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name)) if w]


def is_named_like_features(name: str) -> bool:
    """Whether a column's name says that its vectors are features, and so not series."""
    return _has_word(name, ("embedding", "feature", "vector"))


def _squeezed(name: str) -> str:
    return "".join(_words(name))


def _has_word(name: str, words: Sequence[str]) -> bool:
    return any(word in words or word.removesuffix("s") in words for word in _words(name))


def _word_rank(words: Sequence[str]) -> Callable[[str], int]:
    def rank(name: str) -> int:
        return min((words.index(word) for word in _words(name) if word in words), default=len(words))

    return rank


def _are_image_files(column: Column) -> bool:
    cells = [str(cell)[-200:].strip().lower() for cell in column[: 10 * LOOKED_AT] if not missing(cell)]
    if not any("." in cell[-6:] for cell in cells):  # Pillow need not be asked
        return False
    suffixes = image_suffixes()
    return sum(cell.endswith(suffixes) for cell in cells) > len(cells) / 2


def _is_prose(column: Column) -> bool:
    cells = [str(cell) for cell in column[:LOOKED_AT] if not missing(cell)]
    return (
        bool(cells)
        and len(set(cells)) > len(cells) / 2
        and sum(c[:1000].strip().count(" ") for c in cells) >= 2 * len(cells)
    )


def _are_whole(column: Column) -> bool:
    numbers = as_floats(column)
    numbers = numbers[~np.isnan(numbers)]
    return bool(len(numbers)) and bool(np.array_equal(numbers, numbers.round()))


def _distinct(column: Column) -> int:
    if isinstance(column, np.ndarray) and column.dtype.kind == "T":
        return count_different(column, spelled)
    texts = {cell for cell in different(column) if isinstance(cell, str)}  # one that comes back is looked at once
    others = {spelled(cell) for cell in different(column) if not isinstance(cell, str) and not missing(cell)}
    return len({spelled(text) for text in texts if not missing(text)} | others)


def _counts_rows(column: Column) -> bool:
    numbers = as_floats(column)[:, 0]
    return len(numbers) > 1 and bool(
        np.array_equal(numbers - numbers[0], np.arange(len(numbers))) and numbers[0] in (0, 1)
    )


def _same_partition(one: Column, other: Column) -> bool:
    pairs = {(spelled(a), spelled(b)) for a, b in zip(one, other, strict=True)}
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
