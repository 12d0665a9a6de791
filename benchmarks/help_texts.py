"""Every command's options, defaults and help texts, as JSON; and what differs between two such records.

python benchmarks/help_texts.py > after.json
python benchmarks/help_texts.py before.json after.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, get_args

import typer

Record = dict[str, dict[str, Any]]


def record() -> Record:
    """Command -> its help and, by flags or name, its parameters."""
    from regrain.cli.main import app

    commands = {"": typer.main.get_command(app)}
    commands |= sorted(commands[""].commands.items())  # type: ignore[attr-defined]
    return {
        name: {"help": c.help, "parameters": {"/".join([*p.opts, *p.secondary_opts]): _parameter(p) for p in c.params}}
        for name, c in commands.items()
    }


def _parameter(parameter: Any) -> dict[str, Any]:
    annotation = parameter.type_descriptor.annotation
    choices = get_args(annotation) or getattr(annotation, "__members__", {})
    default = getattr(parameter.default, "value", parameter.default)
    return {
        "type": "|".join(map(str, choices)) or getattr(annotation, "__name__", str(annotation)),
        "repeatable": bool(parameter.multiple or parameter.nargs == -1),
        "default": None if callable(default) or default in ((), []) else str(default),
        "required": parameter.required,
        "panel": parameter.rich_help_panel,
        "help": parameter.help,
    }


def compare(before: Record, after: Record) -> None:
    """Print what was lost, added and changed, but for the order and the panels."""
    for name in sorted({*before, *after}):
        if name not in before or name not in after:
            print(f"{'added' if name in after else 'lost'}    regrain {name}")
            continue
        old, new = before[name]["parameters"], after[name]["parameters"]
        same = {flag: other for flag in old for other in new if set(flag.split("/")) & set(other.split("/"))}
        for flag, about in old.items():
            if flag not in same:
                print(f"lost     regrain {name} {flag}")
                continue
            for field in ("type", "repeatable", "default", "required", "help"):
                if about[field] != new[same[flag]][field]:
                    print(f"{field:8} regrain {name} {flag}: {about[field]} -> {new[same[flag]][field]}")
        for flag in new.keys() - same.values():
            print(f"added    regrain {name} {flag}: {new[flag]['help']}")


def main() -> None:
    if len(sys.argv) == 3:
        compare(*(json.loads(Path(file).read_text(encoding="utf-8")) for file in sys.argv[1:]))
    elif len(sys.argv) == 1:
        print(json.dumps(record(), indent=1))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
