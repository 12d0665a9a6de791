"""MkDocs hook: formulas become MathML when the site is built, so that pages need no script to show them."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

_FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\(?P<open>[(\[])(?P<tex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL
)


def on_page_content(content: str, **_: Any) -> str:
    """Every formula of a page, inline or displayed."""
    return _FORMULA.sub(_as_mathml, content)


def _as_mathml(found: re.Match[str]) -> str:
    tag, display = found["tag"], "block" if found["open"] == "[" else "inline"
    mathml = convert(html.unescape(found["tex"]).strip(), display=display)
    return f'<{tag} class="formula">{mathml}</{tag}>'
