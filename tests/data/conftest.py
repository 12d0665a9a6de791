"""Small files to read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import WriteImage, encode, pixels


@pytest.fixture
def write_image(tmp_path: Path) -> WriteImage:
    """Write random pixels to a path under the scratch folder; returns them."""

    def write(path: str, seed: int = 0, **options: Any) -> np.ndarray:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        array = pixels(seed, **options)
        file.write_bytes(encode(array))
        return array

    return write


@pytest.fixture(autouse=True)
def _own_cache(own_cache: None) -> None: ...
