"""Labels at several levels, and the relation between the levels.

A *level* is one column of labels, coarse before fine (``superclass``, ``label``). Levels form a taxonomy (every fine
class has a parent one level up) or are *aspects* of the sample that do not nest (``rooms``, ``location``). A sample
may be labelled at any mixture of levels: code -1 means unknown, and never equals another -1.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from regrain.coded import Coded
from regrain.errors import UserError, nearest
from regrain.spelling import counted

UNKNOWN = -1
"""The code of a label that is not known."""

SOURCES = ("given", "filled")
"""Where a label comes from: read from the data, or filled in from a finer label by the taxonomy."""

Relation = Literal["tree", "paths", "aspects"]
"""Relations between levels.

``tree``: a class is its name, and has one parent (two parents are an error). ``paths``: a class is its name together
with its ancestors' (``a/other`` is not ``b/other``). ``aspects``: levels do not nest.
"""

_EXAMPLES = 3
_MOST_CODES = 10_000_000


@dataclass(frozen=True)
class Taxonomy:
    """Parents of the classes of each level in the level above.

    Examples
    --------
    >>> taxonomy = Taxonomy.from_edges([("beagle", "dog"), ("poodle", "dog"), ("siamese", "cat")])
    >>> taxonomy.levels, taxonomy.classes[1]
    (('level1', 'level2'), ('beagle', 'poodle', 'siamese'))
    >>> taxonomy.ancestors("level2", "level1").tolist()
    [1, 1, 0]
    """

    levels: tuple[str, ...]
    """Level names from coarse to fine, L of them."""
    classes: tuple[tuple[str, ...], ...]
    """Class names of every level."""
    parents: tuple[tuple[frozenset[int], ...], ...]
    """``parents[l][c]`` are the classes of level ``l - 1`` above class ``c`` of level ``l``; the sets of the coarsest
    level are empty. More than one parent is allowed here; methods that need a tree call :meth:`require_tree`. An empty
    set below the coarsest level means that the class has no parent there, or an unknown one.
    """
    skipped: Mapping[tuple[int, int], tuple[int, frozenset[int]]] = field(default_factory=dict)
    """For a class without a parent one level up, given as (level, class): the nearest level further up where it has
    some, and those.
    """

    def __post_init__(self) -> None:
        if len(self.classes) != len(self.levels) or len(self.parents) != len(self.levels):
            raise UserError(
                f"a taxonomy of {len(self.levels)} levels needs class names and parents for each level; got "
                f"{len(self.classes)} lists of classes and {len(self.parents)} of parents",
                code="wrong_shape",
            )

    @classmethod
    def from_codes(cls, codes: Tensor, levels: Sequence[str], classes: Sequence[Sequence[str]]) -> Taxonomy:
        """The parents that occur in samples: codes (N, L), -1 unknown, say nothing about a pair of levels they lack."""
        parents: list[tuple[frozenset[int], ...]] = []
        skipped: dict[tuple[int, int], tuple[int, frozenset[int]]] = {}
        for level, names in enumerate(classes):
            above: list[set[int]] = [set() for _ in names]
            for upper in range(level - 1, -1, -1):
                both = codes[(codes[:, upper] != UNKNOWN) & (codes[:, level] != UNKNOWN)]
                found: dict[int, set[int]] = {}
                for pair in (both[:, upper] * len(names) + both[:, level]).unique().tolist():
                    found.setdefault(pair % len(names), set()).add(pair // len(names))
                for child, classes_above in found.items():
                    if upper == level - 1:
                        above[child] = classes_above
                    elif not above[child]:
                        skipped.setdefault((level, child), (upper, frozenset(classes_above)))
            parents.append(tuple(frozenset(s) for s in above))
        return cls(tuple(levels), tuple(tuple(c) for c in classes), tuple(parents), skipped)

    @classmethod
    def from_paths(cls, paths: Iterable[str], levels: Sequence[str] | None = None) -> Taxonomy:
        """From ``a/b/c`` paths; a class is its whole path, so ``a/other`` and ``b/other`` differ.

        Examples
        --------
        >>> Taxonomy.from_paths(["a/other", "b/other"]).classes
        (('a', 'b'), ('a/other', 'b/other'))
        """
        labels = Labels.from_paths(list(paths), levels)
        assert labels.taxonomy is not None
        return labels.taxonomy

    @classmethod
    def from_edges(cls, edges: Iterable[tuple[str, str]], levels: Sequence[str] | None = None) -> Taxonomy:
        """From (child, parent) pairs of class names; a class's level is its distance from the root above it.

        Raises
        ------
        UserError
            If the edges contain a cycle, or a class would sit at two depths.
        """
        above: dict[str, set[str]] = {}
        names: set[str] = set()
        for child, parent in edges:
            above.setdefault(str(child), set()).add(str(parent))
            names |= {str(child), str(parent)}
        if not names:
            raise UserError("the taxonomy has no edges: give (child, parent) pairs", code="too_few")
        depth: dict[str, int] = {}
        remaining = sorted(names)
        while remaining:
            ready = [n for n in remaining if all(p in depth for p in above.get(n, ()))]
            if not ready:
                raise UserError(
                    f"the taxonomy's edges run in a circle through {', '.join(remaining[:_EXAMPLES])}",
                    code="labels_conflict",
                )
            for name in ready:
                depths = {depth[p] for p in above.get(name, ())}
                if len(depths) > 1:
                    raise UserError(
                        f"class '{name}' has parents at different depths ({', '.join(sorted(above[name]))}): "
                        "levels must line up; leave one of these edges out or insert the missing level",
                        code="labels_conflict",
                    )
                depth[name] = depths.pop() + 1 if depths else 0
            remaining = [n for n in remaining if n not in depth]
        count = max(depth.values()) + 1
        classes = [sorted((n for n in names if depth[n] == level), key=_class_order) for level in range(count)]
        code = [{n: i for i, n in enumerate(c)} for c in classes]
        parents = tuple(
            tuple(frozenset(code[level - 1][p] for p in above.get(n, ())) for n in classes[level])
            for level in range(count)
        )
        return cls(level_names(levels, count), tuple(tuple(c) for c in classes), parents)

    @classmethod
    def from_json(cls, source: str | Path | Mapping[str, Any]) -> Taxonomy:
        """From JSON: what :meth:`to_json` gives, ``{"edges": [[child, parent], ...]}`` or ``{"paths": [...]}``.

        ``{"classes": {fine: coarse or [coarsest, ...]}}`` is read too: each fine class with its ancestors, coarsest
        first, null where it has none at a level.

        Raises
        ------
        UserError
            If the file is missing, is not JSON or has none of these forms; the message says which.
        """
        where = "the taxonomy" if isinstance(source, Mapping) else str(source)
        content: Any = source
        if not isinstance(source, Mapping):
            try:
                content = json.loads(Path(source).read_text(encoding="utf-8"))
            except FileNotFoundError:
                raise UserError(f"no such taxonomy file: {where}", code="missing_file") from None
            except (OSError, ValueError, RecursionError) as error:
                raise UserError(f"{where} cannot be read as JSON: {error}", code="damaged_file") from None
        if not isinstance(content, Mapping):
            raise UserError(
                f"{where} holds a {type(content).__name__}; a JSON object was expected", code="damaged_file"
            )
        try:
            return cls._from_content(content, where)
        except UserError:
            raise
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            forms = '{"edges": [[child, parent], ...]}, {"paths": ["a/b", ...]} or {"classes": {fine: coarse, ...}}'
            raise UserError(
                f"{where} does not have the form of a taxonomy, {forms}, levels being a list of names: {error}",
                code="damaged_file",
            ) from None

    @classmethod
    def _from_content(cls, content: Mapping[str, Any], where: str) -> Taxonomy:
        levels = content.get("levels")
        if "parents" in content:
            classes = tuple(tuple(map(str, names)) for names in content["classes"])
            parents = tuple(tuple(frozenset(p) for p in level) for level in content["parents"])
            skipped = {(at, code): (upper, frozenset(p)) for at, code, upper, p in content.get("skipped", ())}
            return cls(tuple(levels or ()), classes, parents, skipped)
        if "edges" in content:
            return cls.from_edges([(child, parent) for child, parent in content["edges"]], levels)
        if "paths" in content:
            return cls.from_paths(content["paths"], levels)
        if isinstance(content.get("classes"), Mapping):
            rows = [
                [*(above if isinstance(above, list | tuple) else [above]), fine]
                for fine, above in content["classes"].items()
            ]
            if not rows:
                raise UserError(f"{where} has no taxonomy: its classes are empty", code="damaged_file")
            names = [*(levels or []), "label"] if levels and len(levels) == len(rows[0]) - 1 else levels
            names = level_names(names, max(map(len, rows)))
            columns = {name: [row[i] if i < len(row) else None for row in rows] for i, name in enumerate(names)}
            labels = Labels.from_columns(columns, relation="aspects")  # a class may have several parents here
            taxonomy = cls.from_codes(labels.codes, labels.levels, labels.classes)
            _require_order(taxonomy)
            return taxonomy
        raise UserError(
            f"{where} has no taxonomy: one of the keys parents, edges, paths or classes was expected",
            code="damaged_file",
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads back."""
        return {
            "levels": list(self.levels),
            "classes": [list(names) for names in self.classes],
            "parents": [[sorted(p) for p in level] for level in self.parents],
            "skipped": [[*at, upper, sorted(p)] for at, (upper, p) in self.skipped.items()],
        }

    def level_index(self, level: str) -> int:
        """Position of a level by name; a UserError names the nearest one."""
        return _index_of(level, self.levels)

    def conflicts(self) -> list[str]:
        """Sentences that name every class with more than one parent."""
        found = []
        for index in range(1, len(self.levels)):
            for child in range(len(self.classes[index])):
                upper, parents = self._above(index, child)
                if len(parents) > 1:
                    names = " and ".join(f"'{self.classes[upper][p]}'" for p in sorted(parents))
                    level, above = self.levels[index], self.levels[upper]
                    found.append(f"{level} '{self.classes[index][child]}' lies under {above} {names}")
        return found

    @property
    def is_tree(self) -> bool:
        """Whether no class has more than one parent."""
        return not self.conflicts()

    def require_tree(self, advice: str = "A class of a taxonomy has one parent: mend it there") -> None:
        """Raise a UserError with examples when a class has two parents."""
        conflicts = self.conflicts()
        if conflicts:
            more = f" and {len(conflicts) - _EXAMPLES} more" if len(conflicts) > _EXAMPLES else ""
            raise UserError(f"{'; '.join(conflicts[:_EXAMPLES])}{more}. {advice}".rstrip(), code="labels_conflict")

    def ancestors(self, level: str, above: str) -> Tensor:
        """The class at level ``above`` over each class of ``level``: LongTensor (classes,), -1 where there is none.

        Raises
        ------
        UserError
            If ``above`` is finer than ``level``, or a class lies under two of that level.
        """
        start, stop = self.level_index(level), self.level_index(above)
        if stop > start:
            raise UserError(
                f"level '{above}' is finer than '{level}': ancestors are looked up from fine to coarse",
                code="labels_conflict",
            )
        found = [self._reached(start, code, stop) for code in range(len(self.classes[start]))]
        if any(len(classes) > 1 for classes in found):
            self.require_tree()
        return torch.tensor([next(iter(classes), UNKNOWN) for classes in found], dtype=torch.long)

    def lineage(self, names: Sequence[str]) -> dict[str, Tensor]:
        """The class at every level over the classes of these names, or itself: LongTensor (names,), -1 for none.

        A name that occurs at several levels is that of the finest.

        Examples
        --------
        >>> taxonomy = Taxonomy.from_edges([("beagle", "dog"), ("poodle", "dog"), ("siamese", "cat")])
        >>> {level: codes.tolist() for level, codes in taxonomy.lineage(["poodle", "cat", "fish"]).items()}
        {'level1': [1, 0, -1], 'level2': [1, -1, -1]}
        """
        places = {name: (index, code) for index, level in enumerate(self.classes) for code, name in enumerate(level)}
        result = {level: torch.full((len(names),), UNKNOWN) for level in self.levels}
        for row, (index, code) in ((row, places[name]) for row, name in enumerate(names) if name in places):
            for upper in range(index + 1):
                reached = self._reached(index, code, upper)
                if len(reached) > 1:
                    self.require_tree()
                result[self.levels[upper]][row] = next(iter(reached), UNKNOWN)
        return result

    def _above(self, index: int, code: int) -> tuple[int, frozenset[int]]:
        """Return the nearest level where a class has parents, and the parents; without any, the next level up."""
        parents = self.parents[index][code]
        return (index - 1, parents) if parents else self.skipped.get((index, code), (index - 1, parents))

    def _reached(self, index: int, code: int, target: int) -> frozenset[int]:
        """The classes of a coarser level over a class, by all ways up."""
        frontier, found = {(index, code)}, set()
        while frontier:
            at, current = frontier.pop()
            if at == target:
                found.add(current)
            elif at > target:
                upper, parents = self._above(at, current)
                frontier |= {(upper, parent) for parent in parents}
        return frozenset(found)

    def has_children(self, level: str) -> Tensor:
        """BoolTensor (classes,): whether a class has classes under it, one level down or over levels skipped."""
        index = self.level_index(level)
        result = torch.zeros(len(self.classes[index]), dtype=torch.bool)
        for below in range(index + 1, len(self.levels)):
            for code in range(len(self.classes[below])):
                upper, parents = self._above(below, code)
                if upper == index:
                    result[list(parents)] = True
        return result

    def paths(self) -> Tensor:
        """Return the path to every class without children: LongTensor (leaves, L), one code per level, -1 for none.

        Raises
        ------
        UserError
            If a class lies under two of a level.

        Examples
        --------
        >>> Taxonomy.from_paths(["cat/siamese", "dog/beagle", "fish"], ["animal", "breed"]).paths().tolist()
        [[2, -1], [0, 0], [1, 1]]
        """
        places = [(index, code) for index, names in enumerate(self.classes) for code in range(len(names))]
        inner = {(upper, parent) for place in places for upper, above in [self._above(*place)] for parent in above}
        found = []
        for index, code in places:
            if (index, code) not in inner:
                reached = [self._reached(index, code, upper) for upper in range(index + 1)]
                if any(len(classes) > 1 for classes in reached):
                    self.require_tree()
                path = [next(iter(classes), UNKNOWN) for classes in reached]
                found.append(path + [UNKNOWN] * (len(self.levels) - len(path)))
        return torch.tensor(found, dtype=torch.long)

    def keep(self, levels: Sequence[str]) -> Taxonomy:
        """Return the taxonomy of some of the levels; parents are carried over the levels left out."""
        kept = sorted(self.level_index(level) for level in levels)
        parents: list[tuple[frozenset[int], ...]] = []
        skipped: dict[tuple[int, int], tuple[int, frozenset[int]]] = {}
        for position, index in enumerate(kept):
            sets = [frozenset[int]() for _ in self.classes[index]]
            for upper in range(position - 1, -1, -1):
                for code in range(len(sets)):
                    if sets[code] or (position, code) in skipped:
                        continue
                    reached = self._reached(index, code, kept[upper])
                    if upper == position - 1:
                        sets[code] = reached
                    elif reached:
                        skipped[position, code] = (upper, reached)
            parents.append(tuple(sets))
        return Taxonomy(
            tuple(self.levels[i] for i in kept), tuple(self.classes[i] for i in kept), tuple(parents), skipped
        )


@dataclass(frozen=True)
class Labels:
    """The labels of N samples at L levels.

    Examples
    --------
    >>> labels = Labels.from_columns({"animal": ["dog", None, "cat"], "breed": ["beagle", "beagle", None]})
    >>> labels.codes.tolist()  # the second sample's animal was filled in from its breed
    [[1, 0], [1, 0], [0, -1]]
    >>> labels.filled
    {'animal': 1, 'breed': 0}
    """

    codes: Tensor
    """LongTensor (N, L): class codes, -1 unknown."""
    levels: tuple[str, ...]
    """Level names, coarse to fine when they nest."""
    classes: tuple[tuple[str, ...], ...]
    """Class names of every level."""
    taxonomy: Taxonomy | None = None
    """None when the levels are aspects that do not nest."""
    source: Tensor | None = None
    """(N, L) uint8: index into ``SOURCES``."""

    def __post_init__(self) -> None:
        if self.codes.ndim != 2 or self.codes.shape[1] != len(self.levels) or len(self.classes) != len(self.levels):
            raise UserError(
                f"codes of shape {tuple(self.codes.shape)} do not fit {len(self.levels)} levels with "
                f"{len(self.classes)} lists of class names: codes are (samples, levels)",
                code="wrong_shape",
            )
        if len(set(self.levels)) != len(self.levels):
            raise UserError(f"level names must differ; got {', '.join(self.levels)}", code="labels_conflict")
        for index, (level, names) in enumerate(zip(self.levels, self.classes, strict=True)):
            column = self.codes[:, index]
            if len(column) and (int(column.max()) >= len(names) or int(column.min()) < UNKNOWN):
                raise UserError(
                    f"level '{level}' has codes from {int(column.min())} to {int(column.max())}; "
                    f"its {len(names)} classes allow 0 to {len(names) - 1}, and -1 for unknown",
                    code="out_of_range",
                )

    def __repr__(self) -> str:
        return f"<Labels of {len(self)} samples: {self.in_words() or 'no level'}>"

    def in_words(self) -> str:
        """Each level with its number of classes; empty without levels.

        Examples
        --------
        >>> Labels.from_columns({"kind": ["cat", "cat"], "breed": ["manx", "sphynx"]}).in_words()
        'kind (1 class), breed (2 classes)'
        """
        return ", ".join(f"{level} ({counted(count, 'class', 'classes')})" for level, count in self.counts.items())

    @classmethod
    def empty(cls, count: int) -> Labels:
        """Return labels without any level, for data without labels."""
        return cls(torch.empty(count, 0, dtype=torch.long), (), ())

    @classmethod
    def from_columns(cls, columns: Mapping[str, Sequence[Any] | np.ndarray], *, relation: Relation = "tree") -> Labels:
        """From one column of class names per level, coarse to fine.

        None, NaN and the empty string mean unknown. Known fine labels fill in their known ancestors.

        Raises
        ------
        UserError
            For columns of different lengths; and, unless the levels are aspects, for a class with two parents (with
            examples) and for levels that do not go from coarse to fine, judged by their numbers of classes.
        """
        require_relation(relation)
        lengths = {name: len(values) for name, values in columns.items()}
        if len(set(lengths.values())) > 1:
            raise UserError(f"label columns differ in length: {lengths}", code="wrong_shape")
        names = [Coded.computed(values, _name) for values in columns.values()]
        if relation == "paths":
            names = _qualify(names)
        codes, classes = _encode(names)
        levels = tuple(columns)
        if not levels:
            raise UserError(
                "no label column was given; use Labels.empty(count) for data without labels", code="no_labels"
            )
        if relation == "aspects":
            return cls(codes, levels, classes, source=torch.zeros_like(codes, dtype=torch.uint8))
        taxonomy = Taxonomy.from_codes(codes, levels, classes)
        _require_order(taxonomy)
        taxonomy.require_tree(
            "A class has one parent: fix the rows, say that a class is its whole path (--relation paths; "
            "relation='paths'), or that the levels are aspects that do not nest (--relation aspects; "
            "relation='aspects')"
        )
        return cls(codes, levels, classes, taxonomy).filled_in()

    @classmethod
    def from_paths(cls, paths: Sequence[str | None], levels: Sequence[str] | None = None) -> Labels:
        """From ``a/b/c`` paths, one per sample; a class is its whole path. None or "" is unknown at every level.

        Paths may differ in depth: below a path that nobody extends there is no level (:meth:`absent`), below one that
        others extend the label is unknown.

        Examples
        --------
        >>> labels = Labels.from_paths(["a/x", "a/y", "a", "b"])
        >>> labels.codes.tolist(), labels.absent("level2").tolist()
        ([[0, 0], [0, 1], [0, -1], [1, -1]], [False, False, False, True])
        """
        return cls.from_columns(path_columns(paths, levels))

    @classmethod
    def from_codes(
        cls,
        codes: Tensor | np.ndarray,
        levels: Sequence[str] | None = None,
        classes: Sequence[Sequence[str]] | None = None,
        *,
        relation: Relation = "tree",
    ) -> Labels:
        """From integer codes (N,) or (N, L); classes are named by their numbers unless names are given.

        Raises
        ------
        UserError
            As :meth:`from_columns`; and for codes that are not whole numbers.
        """
        array = codes.detach().cpu().numpy() if isinstance(codes, Tensor) else np.array(codes)
        if array.dtype.kind not in "iufb":
            raise UserError(
                f"codes are whole numbers; got {array.dtype}. Labels.from_columns takes class names", code="wrong_shape"
            )
        values = torch.from_numpy(array)
        values = values[:, None] if values.ndim == 1 else values
        if values.is_floating_point() and not (torch.equal(values, values.round()) and bool(values.isfinite().all())):
            raise UserError(
                "labels given as numbers must be whole numbers (class codes); got fractions, NaN or infinity",
                code="not_finite",
            )
        values = values.long()
        if values.ndim != 2:
            raise UserError(
                f"codes have shape {tuple(values.shape)}; expected (samples,) or (samples, levels)", code="wrong_shape"
            )
        names = level_names(levels, values.shape[1])
        if classes is None:
            counts = [int(values[:, i].max()) + 1 if len(values) else 0 for i in range(len(names))]
            if max(counts, default=0) > _MOST_CODES:
                raise UserError(
                    f"codes count classes from 0, but the largest is {max(counts) - 1}: numbers that are names belong "
                    "into Labels.from_columns",
                    code="out_of_range",
                )
            classes = [[str(c) for c in range(count)] for count in counts]
        require_relation(relation)
        named = tuple(tuple(map(str, c)) for c in classes)
        labels = cls(values, names, named)
        if relation == "aspects":
            return labels
        if relation == "paths":
            raise UserError(
                "relation 'paths' needs class names: use Labels.from_columns or Labels.from_paths", code="unknown_name"
            )
        taxonomy = Taxonomy.from_codes(values, names, named)
        _require_order(taxonomy)
        taxonomy.require_tree(
            "Say that the levels are aspects (--relation aspects; relation='aspects') if they do not nest"
        )
        return replace(labels, taxonomy=taxonomy).filled_in()

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def counts(self) -> dict[str, int]:
        """Number of classes per level."""
        return {level: len(names) for level, names in zip(self.levels, self.classes, strict=True)}

    @property
    def filled(self) -> dict[str, int]:
        """Per level, how many labels were filled in from finer ones."""
        none = torch.zeros_like(self.codes, dtype=torch.bool)
        filled = none if self.source is None else (self.source == 1) & (self.codes != UNKNOWN)
        return dict(zip(self.levels, filled.sum(dim=0).tolist(), strict=True))

    @property
    def known(self) -> dict[str, int]:
        """Per level, how many samples are labelled."""
        return dict(zip(self.levels, (self.codes != UNKNOWN).sum(dim=0).tolist(), strict=True))

    def level_index(self, level: str) -> int:
        """Position of a level by name; a UserError names the nearest one."""
        return _index_of(level, self.levels)

    def level(self, level: str) -> Tensor:
        """Codes (N,) at one level."""
        return self.codes[:, self.level_index(level)]

    def names(self, level: str) -> tuple[str, ...]:
        """Class names of one level."""
        return self.classes[self.level_index(level)]

    def column(self, level: str) -> list[str | None]:
        """The class name of every sample at one level; None where it is unknown."""
        names = (*self.names(level), None)  # code -1 is the last
        return [names[code] for code in self.level(level).tolist()]

    def renumbered(self, level: str | None, numbers: Mapping[str, int], *, other: int = UNKNOWN) -> Tensor:
        """The number (N,) that each sample's class of a level has by its name; ``other`` for classes without one.

        -1 where the label is unknown, or there is no such level.

        Examples
        --------
        >>> Labels.from_columns({"kind": ["cat", None, "dog"]}).renumbered("kind", {"dog": 5}, other=-2).tolist()
        [-2, -1, 5]
        """
        if level not in self.levels:
            return torch.full((len(self),), UNKNOWN)
        table = [numbers.get(name, other) for name in self.names(level)]
        return torch.tensor([*table, UNKNOWN])[self.level(level)]

    def present(self, level: str) -> list[int]:
        """The classes of a level that at least one sample has."""
        return [c for c in self.level(level).unique().tolist() if c != UNKNOWN]

    def absent(self, level: str) -> Tensor:
        """BoolTensor (N,): samples for which this level does not exist, because their class above has no children.

        A label that is missing here although the class above has children is unknown instead.
        """
        index = self.level_index(level)
        result = torch.zeros(len(self), dtype=torch.bool)
        if self.taxonomy is None or index == 0:
            return result
        above = self.levels[index - 1]
        codes = self.codes[:, index - 1]
        leaf = torch.cat([~self.taxonomy.has_children(above), torch.tensor([False])])
        missing = self.codes[:, index] == UNKNOWN
        return missing & (leaf[codes] | self.absent(above))

    def select(self, index: Tensor | np.ndarray | Sequence[int]) -> Labels:
        """The labels of some samples; classes and taxonomy stay as they are."""
        rows = torch.as_tensor(np.asarray(index))
        rows = rows.long() if rows.dtype != torch.bool else rows
        return replace(self, codes=self.codes[rows], source=None if self.source is None else self.source[rows])

    def keep(self, levels: Sequence[str]) -> Labels:
        """Keep only these levels, in the order given by the data: no trace of the others remains."""
        kept = sorted({self.level_index(level) for level in levels})
        return Labels(
            self.codes[:, kept].clone(),
            tuple(self.levels[i] for i in kept),
            tuple(self.classes[i] for i in kept),
            None if self.taxonomy is None else self.taxonomy.keep([self.levels[i] for i in kept]),
            None if self.source is None else self.source[:, kept].clone(),
        )

    def hide(self, levels: Sequence[str]) -> Labels:
        """Drop these levels. Levels that a method does not need never reach it."""
        hidden = {self.level_index(level) for level in levels}
        return self.keep([level for i, level in enumerate(self.levels) if i not in hidden])

    def fingerprint(self) -> str:
        """A hash of codes, levels and class names."""
        content = hashlib.blake2b(repr((self.levels, self.classes)).encode("utf-8", "surrogatepass"), digest_size=16)
        content.update(self.codes.contiguous().numpy().tobytes())
        return content.hexdigest()

    def filled_in(self) -> Labels:
        """Fill in unknown ancestors of known classes, from fine to coarse."""
        assert self.taxonomy is not None
        codes = self.codes.clone()
        for index in range(len(self.levels) - 1, 0, -1):
            for upper in range(index):
                up = self.taxonomy.ancestors(self.levels[index], self.levels[upper])
                parent = torch.cat([up, torch.tensor([UNKNOWN])])[codes[:, index]]
                codes[:, upper] = torch.where(codes[:, upper] == UNKNOWN, parent, codes[:, upper])
        return replace(self, codes=codes, source=(codes != self.codes).to(torch.uint8))


def tree_similarity(codes: Tensor) -> Tensor:
    """Share of the L levels, from the top, on which two samples agree before the first level on which they differ.

    Returns (n, n) float32 in [0, 1].

    Parameters
    ----------
    codes : Tensor (n, L)
        Integers, coarse to fine, -1 unknown. An unknown label agrees with nothing, not even another unknown one, so a
        sample's similarity to itself is its share of levels known from the top.

    Raises
    ------
    UserError
        If codes are not integers of this shape, or there is no level.

    Examples
    --------
    >>> tree_similarity(torch.tensor([[0, 0], [0, 1], [0, -1], [1, 2]]))
    tensor([[1.0000, 0.5000, 0.5000, 0.0000],
            [0.5000, 1.0000, 0.5000, 0.0000],
            [0.5000, 0.5000, 0.5000, 0.0000],
            [0.0000, 0.0000, 0.0000, 1.0000]])
    """
    if codes.ndim != 2 or not codes.shape[1] or codes.is_floating_point():
        raise UserError(
            f"codes are integers (n, levels); got {codes.dtype} of shape {tuple(codes.shape)}", code="wrong_shape"
        )
    together = torch.ones(len(codes), len(codes), dtype=torch.bool, device=codes.device)
    agreed = torch.zeros(len(codes), len(codes), device=codes.device)
    for column in codes.T:
        together &= (column[:, None] == column) & (column != UNKNOWN)
        agreed += together
    return agreed / codes.shape[1]


def _index_of(level: str, levels: Sequence[str]) -> int:
    if level not in levels:
        hint = nearest(level, levels) if levels else "the data have no labels"
        raise UserError(f"no level '{level}': {hint}", code="unknown_level")
    return tuple(levels).index(level)


def level_names(levels: Sequence[str] | None, count: int) -> tuple[str, ...]:
    """Return the names given for ``count`` levels; the default is ``label``, or level1, level2, ..."""
    if levels is None:
        return tuple(f"level{i + 1}" for i in range(count)) if count != 1 else ("label",)
    if len(levels) != count:
        raise UserError(
            f"{len(levels)} level names were given ({', '.join(levels)}) for {count} levels", code="wrong_shape"
        )
    return tuple(levels)


def require_relation(relation: str) -> None:
    """Raise a UserError with the nearest name for a relation that does not exist."""
    if relation not in get_args(Relation):
        raise UserError(f"relation '{relation}': {nearest(str(relation), get_args(Relation))}", code="unknown_name")


def _require_order(taxonomy: Taxonomy) -> None:
    """Fine before coarse shows itself by fewer classes further down, each with many parents."""
    if taxonomy.is_tree:
        return
    counts = [len(names) for names in taxonomy.classes]
    for above, below, many, few in zip(taxonomy.levels, taxonomy.levels[1:], counts, counts[1:], strict=False):
        if many > few > 0:
            raise UserError(
                f"levels go from coarse to fine, but '{above}' has {many} classes and '{below}', after it, "
                f"{few}: swap them, or say that they are aspects that do not nest (--relation aspects; "
                "relation='aspects')",
                code="labels_conflict",
            )


def missing(cell: Any) -> bool:
    """Whether a cell is an unknown label: None, NaN, NA, a masked value, or only spaces.

    Examples
    --------
    >>> [missing(cell) for cell in (None, float("nan"), " ", "nan", 0, -1)]
    [True, True, True, False, False, False]
    """
    if cell is None or (isinstance(cell, str) and (not cell or cell.isspace())) or cell is np.ma.masked:
        return True
    return (isinstance(cell, float | np.floating) and bool(np.isnan(cell))) or type(cell).__name__ in (
        "NAType",
        "NaTType",
    )


def path_columns(paths: Sequence[str | None], levels: Sequence[str] | None = None) -> dict[str, Coded]:
    """``a/b/c`` paths as one column per level, where a class is its path: ``a``, ``a/b``, ``a/b/c``.

    ``levels`` name all of them, coarse to fine; or they choose some by the default names, level1, level2 and so on.

    Raises
    ------
    UserError
        If there is no class in any path, or ``levels`` neither name the levels nor choose some.

    Examples
    --------
    >>> {level: list(names) for level, names in path_columns(["a/x", "b", None]).items()}
    {'level1': ['a', 'b', None], 'level2': ['a/x', None, None]}
    >>> list(path_columns(["a/x", "b/y"], ["kind", "sort"])), list(path_columns(["a/x", "b/y"], ["level2"]))
    (['kind', 'sort'], ['level2'])
    """
    parts = Coded.of(paths).mapped(lambda path: [p for p in str(path).strip("/").split("/") if p] if path else [])
    depth = max(map(len, parts.cells), default=0)
    if depth == 0:
        raise UserError("the paths hold no class: expected strings like 'animal/dog/beagle'", code="too_few")

    def at(place: int) -> Coded:
        return parts.mapped(lambda found: "/".join(found[: place + 1]) if place < len(found) else None)

    own = level_names(None, depth)
    if levels is not None and set(levels) <= set(own):
        return {name: at(place) for place, name in enumerate(own) if name in levels}
    if levels is not None and len(levels) != depth:
        raise UserError(
            f"{len(levels)} level names were given ({', '.join(levels)}) for {depth} levels: name all of them, coarse "
            f"to fine, or choose of {', '.join(own)}",
            code="wrong_shape",
        )
    return {name: at(place) for place, name in enumerate(levels or own)}


def _name(value: Any) -> str | None:
    """A class name, None when unknown."""
    if missing(value):
        return None
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))  # a column of whole numbers with gaps is read as floats
    return str(value).strip()


def _qualify(names: Sequence[Coded]) -> list[Coded]:
    """Turn each class into its path from the top; without a known ancestor the class is unknown."""
    result = []
    for depth in range(1, len(names) + 1):
        rows = zip(*names[:depth], strict=True)
        result.append(Coded.of(None if None in row else "/".join(map(str, row)) for row in rows))
    return result


def _class_order(name: str) -> tuple[int, float, str]:
    """Sort numbers by value, before names in alphabetical order."""
    try:
        value = float(name)
    except ValueError:
        value = math.nan
    return (0, value, name) if math.isfinite(value) else (1, 0.0, name)  # "NAN" and "inf" are names


def _encode(columns: Sequence[Coded]) -> tuple[Tensor, tuple[tuple[str, ...], ...]]:
    codes, classes = [], []
    for column in columns:
        names = sorted({name for name in column.cells if name is not None}, key=_class_order)
        lookup: dict[str | None, int] = {name: code for code, name in enumerate(names)} | {None: UNKNOWN}
        codes.append(torch.from_numpy(np.array([lookup[name] for name in column.cells], np.int64)[column.codes]))
        classes.append(tuple(names))
    return torch.stack(codes, dim=1) if codes else torch.empty(0, 0, dtype=torch.long), tuple(classes)
