"""Griffe extension: docstrings as Markdown, with their references, formulas and what they return."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_REFERENCE = re.compile(r":(?:class|func|meth|mod|attr|data|exc):`(?P<short>~?)(?P<target>[\w.]+)`")
_INLINE = re.compile(r":math:`(?P<tex>[^`]+)`")
_BLOCK = re.compile(r"^(?P<indent> *)\.\. math::(?P<tex>[^\n]*(?:\n(?P=indent) +[^\n]+)*)", re.MULTILINE)
_RETURNED = re.compile(r"^(?P<heading>Returns\n-+\n)(?P<text>\S+ [^\n]*(?:\n\S[^\n]*)*)(?=\n\n|\s*\Z)", re.MULTILINE)
"""A section of prose alone; one that goes on with an indented line has a type in its first."""


class SphinxRoles(Extension):
    """Rewrites every docstring as it is found."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """A reference becomes a link where the API pages have its target, else plain code."""
        if obj.docstring is None:
            return
        text = _BLOCK.sub(
            lambda found: f"\n{found['indent']}\\[{' '.join(found['tex'].split())}\\]\n", obj.docstring.value
        )
        if obj.is_function:
            text = _RETURNED.sub(lambda found: _with_type(found, str(obj.returns)), text)
        text = _INLINE.sub(r"\\(\g<tex>\\)", text)
        obj.docstring.value = _REFERENCE.sub(lambda found: _link(found, obj), text)


def _with_type(found: re.Match[str], annotation: str) -> str:
    described = "".join(f"    {line}\n" for line in found["text"].splitlines())
    return f"{found['heading']}{annotation}\n{described}"


def _displayed(found: re.Match[str]) -> str:
    return f"\n{found['indent']}\\[{' '.join(found['tex'].split())}\\]\n"


def _link(found: re.Match[str], obj: Object) -> str:
    target = found["target"]
    shown = target.rsplit(".", 1)[-1] if found["short"] or target.startswith("regrain.") else target
    full = target.lstrip(".")
    if not target.startswith("regrain"):
        full = f"{obj.module.path}.{full}"
    return f'<autoref identifier="{full}" optional><code>{shown}</code></autoref>'
