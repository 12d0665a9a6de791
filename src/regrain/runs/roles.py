"""Which level of the labels plays which role that a method reads."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from regrain.errors import UserError
from regrain.labels import Labels
from regrain.methods.base import EVERY, Method


def roles_of(method: type[Method], levels: Sequence[str], recorded: Mapping[str, str] | None = None) -> dict[str, str]:
    """The level that plays each role a method reads.

    ``coarse`` is the first of the levels and ``fine`` the last, unless ``recorded`` names others; there it may also
    name further coarse levels, for methods that read several.

    Raises a UserError if the method reads labels and there are none, or what was asked for does not fit the levels in
    use.
    """
    asked = {role: level for role, level in (recorded or {}).items() if re.fullmatch(r"fine|coarse\d*", role)}
    coarse = [level for role, level in asked.items() if role != "fine"]
    _require_fitting(method, asked, coarse, levels)
    if not method.needs.levels:
        return {}
    every = method.needs.levels == (EVERY,)
    if not levels:
        read = "the labels of every level" if every else f"{' and '.join(method.needs.levels)} labels"
        raise UserError(
            f"{method.name} reads {read}, and the data have none; "
            "selfcon, simclr, nnclr, self-classifier, scan, sela and kmeans need none"
        )
    if every:
        return dict(zip(method.roles_of(len(levels)), levels, strict=True))
    ends = {"coarse": levels[0], "fine": levels[-1], **asked}
    return {role: ends[role] for role in method.roles_of(len(coarse))}


def _require_fitting(
    method: type[Method], asked: Mapping[str, str], coarse: Sequence[str], levels: Sequence[str]
) -> None:
    """Refuse levels ``asked`` for by role, the ``coarse`` ones among them, that the method or the data do not have."""
    if asked and method.needs.levels in ((), (EVERY,)):
        reads = "every level in use: choose them by --level" if method.needs.levels else "no labels"
        raise UserError(f"{method.name} reads {reads}; leave out --{next(iter(asked))}", code="conflicting_options")
    for role, level in asked.items():
        if level not in levels:
            raise UserError(
                f"--{role.rstrip('0123456789')} {level} is not one of the levels in use, {', '.join(levels)}: --level "
                "names them",
                code="unknown_level",
            )
    for level in coarse:
        if "fine" in asked and levels.index(level) >= levels.index(asked["fine"]):
            raise UserError(
                f"--coarse {level} is not coarser than --fine {asked['fine']}: from coarse to fine the levels in "
                f"use are {', '.join(levels)}",
                code="conflicting_options",
            )
        if coarse.count(level) > 1:
            raise UserError(f"--coarse {level} is given twice", code="conflicting_options")
    if len(coarse) > 1 and not method.needs.several:
        raise UserError(
            f"{method.name} reads one coarse level; got --coarse {' --coarse '.join(coarse)}: falcon reads several",
            code="conflicting_options",
        )


def labels_read(method: type[Method], roles: Mapping[str, str], labels: Labels) -> Labels:
    """Keep only the levels that play a role, in the order of the roles.

    Raises a UserError for labels from which the method cannot learn: all of them unknown, or of too few classes.
    """
    for role, level in roles.items():
        present = labels.present(level)
        if not present:
            raise UserError(
                f"every label of level '{level}' is unknown in the training data: {method.name} has no {role} "
                "label to learn from",
                code="no_labels",
            )
        if len(present) < method.needs.minimum_classes:
            raise UserError(
                f"level '{level}' has one class in the training data ('{labels.names(level)[present[0]]}'): "
                f"{method.name} needs at least {method.needs.minimum_classes} {role} classes. Choose another "
                "--level, or a method without labels (selfcon, simclr, nnclr)",
                code="too_few",
            )
    kept, levels = labels.keep(list(roles.values())), tuple(roles.values())
    order = [kept.levels.index(level) for level in levels]
    return replace(kept, codes=kept.codes[:, order], levels=levels, classes=tuple(kept.classes[i] for i in order))


def unread(labels: Labels, recipe: Mapping[str, Any], asked: Mapping[str, str]) -> list[str]:
    """A sentence on labels that are finer than those that the method reads, unless the user said which are fine."""
    method, roles = recipe["method"]["name"], recipe["data"]["roles"]
    if not roles or labels.taxonomy is None or "fine" in asked:
        return []
    finest = max(map(labels.level_index, roles.values()))
    finer = [level for level in labels.levels[finest + 1 :] if labels.known[level]]
    if not finer:
        return []
    return [
        f"{method} does not read the finer labels ({', '.join(finer)}): they serve evaluation only; mixed learns from "
        f"every level, sup-fine from {finer[-1]}, and --fine {finer[-1]} says that they are to be found"
    ]
