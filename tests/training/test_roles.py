"""Which level plays which role: --coarse and --fine, and what is said of labels that no one reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import regrain
from regrain.errors import UserError
from regrain.methods import method_class
from regrain.runs.roles import roles_of

QUICK: dict[str, Any] = {"encoder": "mlp", "epochs": 1, "device": "cpu"}
LEVELS = ("kingdom", "family", "species")


def animals() -> pd.DataFrame:
    rows = [(i % 2, i % 4, i % 8, i / 64, (i * 7 % 64) / 64) for i in range(64)]
    table = pd.DataFrame(rows, columns=[*LEVELS, "a", "b"])
    for level in LEVELS:
        table[level] = level[0] + table[level].astype(str)
    return table


@pytest.mark.parametrize(
    ("method", "asked", "roles"),
    [
        ("sup-ce", {}, {"coarse": "kingdom"}),
        ("sup-ce", {"coarse": "family"}, {"coarse": "family"}),
        ("sup-ce", {"coarse": "family", "fine": "species"}, {"coarse": "family"}),
        ("sup-fine", {"fine": "family"}, {"fine": "family"}),
        ("mixed", {}, {"level1": "kingdom", "level2": "family", "level3": "species"}),
    ],
)
def test_roles(method: str, asked: dict[str, str], roles: dict[str, str]) -> None:
    assert roles_of(method_class(method), LEVELS, asked) == roles
    assert roles_of(method_class(method), LEVELS, roles) == roles  # as a recipe records them


@pytest.mark.parametrize(
    ("method", "asked", "code"),
    [
        ("sup-ce", {"coarse": "familly"}, "unknown_level"),
        ("sup-ce", {"coarse": "species", "fine": "family"}, "conflicting_options"),
        ("sup-ce", {"coarse": "species", "fine": "species"}, "conflicting_options"),
        ("mixed", {"coarse": "family"}, "conflicting_options"),
        ("simclr", {"fine": "species"}, "conflicting_options"),
    ],
)
def test_roles_that_cannot_be(method: str, asked: dict[str, str], code: str) -> None:
    with pytest.raises(UserError) as caught:
        roles_of(method_class(method), LEVELS, asked)
    assert caught.value.code == code


def test_a_run_is_trained_on_the_level_that_plays_coarse(tmp_path: Path) -> None:
    data = regrain.load(animals(), levels=list(LEVELS), columns=["a", "b"])
    run = regrain.fit("sup-ce", data, coarse="family", out=tmp_path / "run", **QUICK)
    assert run.recipe["data"]["roles"] == {"coarse": "family"}
    assert run.model.method.classes == (4,)
    again = regrain.fit("sup-ce", data, recipe=run.path / "recipe.yaml", out=tmp_path / "again", device="cpu")
    assert again.recipe["data"]["roles"] == {"coarse": "family"}
    (notice,) = [n for n in run.notices if "finer labels" in n]
    assert "sup-ce does not read the finer labels (species)" in notice
    told = regrain.fit("sup-ce", data, coarse="family", fine="species", out=tmp_path / "told", **QUICK)
    assert not [n for n in told.notices if "finer labels" in n]
    with pytest.raises(UserError, match="family is not one of the levels in use, kingdom"):
        regrain.fit("sup-ce", data, levels=["kingdom"], coarse="family", out=tmp_path / "refused", **QUICK)


def test_columns_of_a_table_are_named_by_their_roles(tmp_path: Path) -> None:
    roles = {"coarse": "kingdom", "fine": "species"}
    run = regrain.fit("sup-fine", animals(), columns=["a", "b"], out=tmp_path / "run", **roles, **QUICK)
    assert run.recipe["data"]["levels"] == ["kingdom", "species"]
    assert run.recipe["data"]["roles"] == {"fine": "species"}
