"""Random changes of a training photo that leave the person who they are.

Aligned crops differ between sources by a few pixels, by light and by sharpness, and parts of faces
are covered. Pillow and tables of 256 values keep this at about 0.2 ms for 112 x 112 pixels.
"""

import numpy as np
from PIL import Image

SHIFT = 0.05  # of the side, any direction; and as much closer or farther away
CONTRAST, BRIGHTNESS = 0.35, 35.0  # share; grey levels
BLUR_CHANCE, SMALLEST = 0.3, 0.25  # sides after shrinking, as a share, before growing back
COVER_CHANCE, COVER = 0.3, 0.4  # longest side of the grey rectangle, as a share

_BILINEAR = Image.Resampling.BILINEAR


def augment(image: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """One random version of a photo.

    Args:
      image: u8[H,W,3]; not changed.
      rng: where all chance comes from; every call at a strength above 0 draws as many values.
      strength: scales all changes but the flip, 0 (the photo itself) to 1.

    Returns:
      u8[H,W,3], flipped, shifted and zoomed, of other brightness and contrast, sometimes blurred,
      sometimes partly covered.
    """
    if strength == 0:
        return image
    flip, blur, shrink, cover, *corner = rng.uniform(0, 1, 8)
    shift, (contrast, brightness) = rng.uniform(-1, 1, 3) * strength, rng.uniform(-1, 1, 2)
    height, width = image.shape[:2]
    picture = _moved(image[:, ::-1] if flip < 0.5 else image, shift)
    picture = picture.point(_tone(contrast * strength, brightness * strength))
    if blur < BLUR_CHANCE * strength:
        share = 1 - shrink * strength * (1 - SMALLEST)
        small = max(1, round(width * share)), max(1, round(height * share))
        picture = picture.resize(small, _BILINEAR).resize((width, height), _BILINEAR)
    changed = np.array(picture)
    if cover < COVER_CHANCE * strength:
        _cover(changed, corner)
    return changed


def _moved(image: np.ndarray, shift: np.ndarray) -> Image.Image:
    """Shifted along both axes and zoomed, the edge repeated beyond the picture.

    Args:
      shift: f64[3] in [-1, 1]: down, right, closer.
    """
    height, width = image.shape[:2]
    pad_y, pad_x = int(2 * SHIFT * height) + 1, int(2 * SHIFT * width) + 1
    padded = np.pad(image, ((pad_y, pad_y), (pad_x, pad_x), (0, 0)), mode="edge")
    down, right, closer = SHIFT * shift
    top, left = pad_y + height * (down + closer), pad_x + width * (right + closer)
    box = left, top, left + width * (1 - 2 * closer), top + height * (1 - 2 * closer)
    return Image.fromarray(padded).resize((width, height), _BILINEAR, box=box)


def _tone(contrast: float, brightness: float) -> list[int]:
    """A table of grey levels, once a channel; both in [-1, 1]."""
    levels = (np.arange(256) - 128) * (1 + CONTRAST * contrast) + 128 + BRIGHTNESS * brightness
    return np.clip(np.rint(levels), 0, 255).astype(int).tolist() * 3


def _cover(image: np.ndarray, corner: list[float]) -> None:
    """Paints a grey rectangle; corner: top, left, height, width in [0, 1]."""
    height, width = image.shape[:2]
    rows, columns = max(1, int(COVER * height * corner[2])), max(1, int(COVER * width * corner[3]))
    top, left = int(corner[0] * (height - rows)), int(corner[1] * (width - columns))
    image[top : top + rows, left : left + columns] = 128
