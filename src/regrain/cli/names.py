"""Check names before importing torch, which takes seconds; a typo raises the same error as in Python."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Collection, Mapping, Sequence
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from regrain.errors import UserError, nearest, no_protocol_option, no_section, no_setting, not_a_run


def check(parameter: str, flag: str, value: Any, choices: Collection[str]) -> None:
    """Raise a UserError that names the nearest choice if the value is not one of the choices."""
    for text in value if isinstance(value, list) else () if value is None else (value,):
        if choices and text not in choices:
            raise UserError(f"{flag} has no choice '{text}': {nearest(text, choices)}", code="unknown_name")
        if parameter in _CHECKS:
            _CHECKS[parameter](str(text))


def check_settings(given: Mapping[str, Any]) -> None:
    """Raise a UserError for a name in ``--set``, ``--range`` or ``-o`` that nothing has."""
    from regrain.cli import build

    for key in _keys(given.get("options") or ()):
        if key not in build.protocol_options():
            raise no_protocol_option(key, build.protocol_options())
    if given.get("method") is None:
        return
    from regrain.methods import method_name

    homes = build.value_of(ast.Name("_HOMES"), "regrain.methods")
    home = homes.get(method_name(given["method"]))
    if home is None:  # a method of the user's, which is imported already
        return
    sections = build.keys_of("regrain.runs.recipe", "SECTIONS")
    for parameter, flag in (("settings", "--set"), ("ranges", "--range")):
        for key in _keys(given.get(parameter) or ()):
            if "." in key:
                if key.partition(".")[0] not in sections:
                    raise no_section(flag, key, sections)
                continue
            known = {"seed", *build.fields_of("regrain.training.options:TrainingOptions")}
            known |= set(build.keywords_of(f"regrain.methods.{home}"))
            if key not in known:
                raise no_setting(flag, given["method"], key, known)


def _keys(assignments: Sequence[str]) -> list[str]:
    """The names before the signs; what has none is left for the verb to refuse."""
    pairs = (text.partition("=") for text in assignments)
    return [key.strip() for key, sign, _ in pairs if sign and key.strip()]


def _method(name: str) -> None:
    from regrain.methods import method_name

    method_name(name)


def _source(name: str) -> None:
    from regrain.registry import dataset_names, is_url, no_source

    if is_url(name):
        return
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


def require_taxonomy(name: str) -> None:
    """Raise a UserError if a name is neither a taxonomy of the package nor a file."""
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
    if not os.path.isdir(os.path.expanduser(path)):
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
    "mapping": require_taxonomy,
    "taxonomy": require_taxonomy,
    "recipes": _recipe,
}
