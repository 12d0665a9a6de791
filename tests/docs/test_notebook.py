"""The notebook runs as it stands, and prints what it shows. As a script this file stores what it prints."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from typing import Any

import pytest
from tutorial_pages import masked

NOTEBOOK = Path(__file__).resolve().parents[2] / "docs" / "tutorials" / "notebook.ipynb"


def _executed(folder: str | Path) -> Any:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":  # others' warnings hold paths of this machine
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def _shown(cell: Any) -> str:
    """What a cell prints and gives, as text."""
    texts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.get("outputs", ())]
    return "\n".join(texts)


def test_the_notebook_runs_and_shows_what_it_stores(tmp_path: Path) -> None:
    missing = [name for name in ("nbclient", "ipykernel") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} are not installed: they run the notebook")
    import nbformat

    stored = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    run = [cell for cell in _executed(tmp_path).cells if cell.cell_type == "code"]
    assert sum(bool(_shown(cell)) for cell in stored) >= 6
    for before, now in zip(stored, run, strict=True):
        assert masked(_shown(now)) == masked(_shown(before)), before.source


if __name__ == "__main__":
    import nbformat

    with tempfile.TemporaryDirectory() as folder:
        made = _executed(folder)
    nbformat.write(made, NOTEBOOK)
