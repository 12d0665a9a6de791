"""Folders in which several trainings belong to one plan, so that the same command again goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regrain.errors import UserError
from regrain.storage.files import read_json, require_place, write_text


def begin_plan(path: Path, content: Mapping[str, Mapping[str, Any]], what: str) -> bool:
    """Whether the plan was begun in the folder before; where it was not, ``plan.json`` is written.

    Raises a UserError if the folder holds another plan, or anything else.

    ``path``: the folder; made where it does not exist. ``content``: what must be equal for its trainings to belong
    together, by section. ``what``: what the folder holds, in words.
    """
    plain = json.loads(json.dumps(content))
    file = path / "plan.json"
    if file.exists():
        begun = read_json(file, dict[str, dict[str, Any]])
        if begun != plain:
            odd = [
                name
                for section in plain
                for name, value in plain[section].items()
                if value != begun.get(section, {}).get(name)
            ]
            raise UserError(
                f"{path} holds another {what} (other {', '.join(odd) or 'layout'}): choose another --out, "
                f"or repeat that {what}'s command to go on with it",
                code="other_data" if {"fingerprint", "labels"} & set(odd) else "would_overwrite",
            )
        return True
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} exists and holds no {what}: choose another --out", code="would_overwrite")
    require_place(path)
    write_text(file, json.dumps(plain, indent=1))
    return False
