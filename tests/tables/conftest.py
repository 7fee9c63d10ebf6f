"""People in folders whose photos are one colour each, so that every pixel says which it is."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def draw() -> Callable[[Path, int], Path]:
    """draw(path, shade) makes a grey photo of 112 x 112 and gives back its path."""

    def photo(path: Path, shade: int) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (112, 112), (shade, shade, shade)).save(path)
        return path

    return photo
