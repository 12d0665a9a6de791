"""Check names before importing torch, which takes seconds; a typo raises the same error as in Python."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from regrain.errors import UserError, nearest, not_a_run


def check(parameter: str, flag: str, value: Any, choices: Collection[str]) -> None:
    """Raise a UserError that names the nearest choice if the value is not one of the choices."""
    for text in value if isinstance(value, list) else () if value is None else (value,):
        if choices and text not in choices:
            raise UserError(f"{flag} has no choice '{text}': {nearest(text, choices)}", code="unknown_name")
        if parameter in _CHECKS:
            _CHECKS[parameter](str(text))


def _method(name: str) -> None:
    from regrain.methods import method_name

    method_name(name)


def _source(name: str) -> None:
    from regrain.registry import dataset_names, no_source

    try:
        os.stat(os.path.expanduser(name))
    except (FileNotFoundError, NotADirectoryError):
        if name not in dataset_names():
            raise no_source(name) from None
    except (OSError, ValueError):  # the reader says why
        return


def _protocol(name: str) -> None:
    from regrain.cli.build import protocols

    if name not in protocols():
        raise UserError(f"no protocol '{name}': {nearest(name, protocols())}", code="unknown_name")


def _encoder(name: str) -> None:
    from regrain.cli.build import keys_of

    own = {*keys_of("regrain.encoders.build", "_OURS"), *keys_of("regrain.encoders.build", "_FROM_LIBRARIES")}
    own |= set(keys_of("regrain.encoders.image", "NAMED"))
    own -= {"image", "text", "vector", "series"}
    if name in own or "/" in name or os.path.isdir(os.path.expanduser(name)):
        return
    models = _timm_models()
    if models and name.partition(".")[0] not in models:
        import difflib

        close = difflib.get_close_matches(name, [*own, *models], n=1)
        hint = nearest(name, close) if close else f"any model of timm, or {', '.join(sorted(own))}"
        raise UserError(f"no encoder '{name}': {hint}", code="unknown_name")


def _timm_models() -> Sequence[str]:
    """Read the names of timm's models from its source, since importing it takes seconds."""
    spec = find_spec("timm")
    if spec is None or not spec.submodule_search_locations:
        return ()
    found: list[str] = []
    for file in sorted(Path(spec.submodule_search_locations[0], "models").glob("*.py")):
        found += re.findall(r"^@register_model\ndef (\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    return found


def _taxonomy(name: str) -> None:
    files = [file.name for file in (resources.files("regrain") / "data" / "groupings").iterdir()]
    names = [file.removesuffix(".json") for file in files if file.endswith(".json")]
    if name not in names and not os.path.isfile(os.path.expanduser(name)):
        raise UserError(f"no taxonomy '{name}', and no such file: {nearest(name, names)}", code="missing_file")


def _recipe(name: str) -> None:
    import yaml

    paper, *rest = name.split("/")
    folder = resources.files("regrain.papers") / "tables"
    papers = [file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml")]
    known = papers
    if rest and paper in papers:
        text = (folder / f"{paper}.yaml").read_text(encoding="utf-8")
        content = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # a safe one
        known = [f"{paper}/{table}" for table in content["tables"]]
    if "/".join((paper, *rest[:1])) not in known:
        raise UserError(f"no recipe, table or paper '{name}': {nearest(name, known)}", code="unknown_name")


def _run(path: str) -> None:
    if not os.path.isdir(path):
        raise not_a_run(path)


_CHECKS = {
    "run": _run,
    "runs": _run,
    "path": _run,
    "method": _method,
    "data": _source,
    "support": _source,
    "encoder": _encoder,
    "protocols": _protocol,
    "mapping": _taxonomy,
    "taxonomy": _taxonomy,
    "recipes": _recipe,
}
