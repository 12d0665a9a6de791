"""Words that must be read twice stay out of docstrings, messages and pages."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
MODULES = sorted((ROOT / "src").rglob("*.py"))

PATTERNS = {
    r"(?<!there )(?<!where )\b(is|are|was|were) no\b(?! (longer|more|better|worse|other))": "is not a",
    r"\banew\b": "again",
    r"\b(is|are) told\b(?! apart)": "reports, warns",
    r"\bhangs? on\b": "depends on",
    r"\bin the measure of\b": "as far as",
    r"\bbut for\b": "except for",
    r'(?:^|(?<=[.!] )|(?<="""))(?-i:What|Those|That of)\b(?![^.!?]*\?)': "the noun",
}


def faults(text: str) -> list[str]:
    flat = re.sub(r"\s+", " ", text)
    found = []
    for pattern, better in PATTERNS.items():
        for match in re.finditer(pattern, flat, re.IGNORECASE):
            around = flat[max(0, match.start() - 30) : match.end() + 30]
            found.append(f"{around!r}: say {better!r}")
    return found


def strings_of(path: Path) -> str:
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)
    kinds = {tokenize.STRING, tokenize.COMMENT} | {getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    return "\n".join(token.string for token in tokens if token.type in kinds)


def prose_of(path: Path) -> str:
    return re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("files", "text_of"), [(PAGES, prose_of), (MODULES, strings_of)], ids=["pages", "modules"])
def test_text_reads_plainly(files: list[Path], text_of: Callable[[Path], str]) -> None:
    found = {str(file.relative_to(ROOT)): faults(text_of(file)) for file in files}
    assert not {file: said for file, said in found.items() if said}


def test_the_patterns_find_what_they_forbid() -> None:
    assert len(faults("This is no image. It is told in a message, anew; it hangs on the seed.")) == 4
    assert not faults("There is no image. Classes are told apart. It is no longer there. What is it?")


def test_the_page_about_style_shows_every_pattern() -> None:
    block = re.search(r"^```text\n(.*?)^```", (ROOT / "docs" / "style.md").read_text(), re.MULTILINE | re.DOTALL)
    assert block is not None
    rows = [re.split(r" {2,}", line) for line in block[1].splitlines()]
    assert all(len(faults(wrong)) == 1 and not faults(right) for wrong, right in rows)
    said = " ".join(fault for wrong, _ in rows for fault in faults(wrong))
    assert all(repr(better) in said for better in PATTERNS.values())
