"""Face photos as arrays: read one, check many, stream batches.

Pixels are `u8[H, W, 3]` RGB in 0..255, as aligned crops are stored.
"""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from opom_jax.errors import InputError

# Named, because Pillow would also try formats that run a program (EPS runs Ghostscript).
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF", "GIF")
# Below Pillow's own limit, from which it would only warn; 192 MiB as RGB.
MAX_PIXELS = 2**26
_CHUNK = 64
_AHEAD = 8  # people whose photos are looked at together

T = TypeVar("T")
StrPath = str | os.PathLike[str]


def read_image(path: StrPath, size: int, resize: bool = False) -> np.ndarray:
    """Decodes one image in full.

    Grey, palette and CMYK images are converted to RGB, alpha is dropped, 16-bit colour is cut to
    8 bits, an animation gives its first frame. The EXIF orientation is not applied: aligned crops
    have none.

    Args:
      path: a JPEG, PNG, BMP, WebP, PPM, TIFF or GIF file, whatever its suffix.
      size: height and width to return, in pixels.
      resize: whether an image of another size is resized (bilinear, antialiased, the aspect ratio
        not kept) instead of refused.

    Returns:
      u8[size, size, 3] RGB in 0..255.

    Raises:
      InputError: no readable file, not an image, pixels missing, of 16-bit grey or float, another
        size, more than `MAX_PIXELS`.
    """
    with _opened(Path(path)) as file:
        return _decoded(file, path, size, resize)


def inspect(
    paths: Sequence[Path],
    size: int,
    resize: bool = False,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """Decodes every image, as a check before hours of work, and returns what identifies them all.

    Args:
      paths: the images; memory does not grow with their number.
      size, resize: as in `read_image`.
      workers: threads; None for as many as suit the machine.
      progress: called with the images done and their total, every few images and at the end.

    Returns:
      The hex SHA-256 over, for each file in order, its length (8 bytes, big-endian) and the
      SHA-256 of its bytes. It changes with any byte and with the order, not with the names.

    Raises:
      InputError: the first bad image in the order of `paths`.
    """

    total, done = hashlib.sha256(), 0
    chunks = (paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK))
    fingerprint = partial(_fingerprint, size, resize)
    with closing(_pooled(fingerprint, chunks, workers, ahead=2)) as checked:
        for prints in checked:
            total.update(b"".join(prints))
            done += len(prints)
            if progress:
                progress(done, len(paths))
    return total.hexdigest()


def inspect_each(
    groups: Iterable[Sequence[Path]], size: int, resize: bool = False, workers: int | None = None
) -> Iterator[str]:
    """The same for groups of images, taken as they are needed: yields what `inspect` returns for
    each; InputError for a bad image when its group is due."""
    fingerprint = partial(_fingerprint, size, resize)
    with closing(_pooled(fingerprint, groups, workers, _AHEAD)) as checked:
        for prints in checked:
            yield hashlib.sha256(b"".join(prints)).hexdigest()


def _fingerprint(size: int, resize: bool, path: Path) -> bytes:
    """Length and SHA-256 of an image file that can be decoded."""
    with _opened(Path(path)) as file:
        _decoded(file, path, size, resize)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").digest()
        return file.tell().to_bytes(8, "big") + digest


def read_batches(
    batches: Iterable[Sequence[Path]],
    size: int,
    resize: bool = False,
    workers: int = 4,
    prefetch: int = 2,
) -> Generator[np.ndarray, None, None]:
    """Decodes batches of images in the background, so that reading overlaps computing.

    Args:
      batches: the paths of each batch, taken as they are needed.
      size, resize: as in `read_image`.
      workers: threads that decode.
      prefetch: batches decoded ahead of the consumer, which bounds the memory.

    Yields:
      u8[len(batch), size, size, 3] RGB in 0..255, in order.

    Raises:
      InputError: a bad image, when its batch is due. The threads end with the generator, be it
        used up, failed or closed early.
    """

    def read(path: Path) -> np.ndarray:
        return read_image(path, size, resize)

    with closing(_pooled(read, batches, workers, prefetch)) as decoded:
        for images in decoded:
            yield np.array(images, np.uint8).reshape(len(images), size, size, 3)


def _pooled(
    job: Callable[[Path], T], batches: Iterable[Sequence[Path]], workers: int | None, ahead: int
) -> Generator[list[T], None, None]:
    """Yields `[job(path) for path in batch]` in order, `ahead` batches under way behind it."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="images")
    waiting = deque()
    try:
        for batch in batches:
            waiting.append([pool.submit(job, path) for path in batch])
            if len(waiting) > ahead:
                yield [future.result() for future in waiting.popleft()]
        while waiting:
            yield [future.result() for future in waiting.popleft()]
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _opened(path: Path) -> Iterator[BufferedReader]:
    """A regular file open for reading; an OSError there or in the body becomes an InputError."""
    try:
        if not path.is_file():  # also keeps a named pipe from blocking for ever
            what = "is a folder or device" if path.exists() else "does not exist"
            raise InputError(f"{str(path)!r} {what}; give an image file.")
        with path.open("rb") as file:
            yield file
    except OSError as error:
        what = f"cannot be read ({error.strerror or error})"
        raise InputError(f"{str(path)!r} {what}; make it a readable file.") from error


def _decoded(file: BufferedReader, path: StrPath, size: int, resize: bool) -> np.ndarray:
    """The pixels of an open image file, as in `read_image`."""
    name = repr(os.fspath(path))
    try:
        with Image.open(file, formats=FORMATS) as image:
            _check_header(image, name, size, resize)
            image.load()
            image.info.pop("transparency", None)  # alpha is dropped; convert() would warn of it
            rgb = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
            return np.array(rgb)
    except InputError:
        raise
    except UnidentifiedImageError as error:
        what = f"is not a whole {', '.join(FORMATS)} image"
        raise InputError(f"{name} {what}; replace the file.") from error
    except Exception as error:  # on broken files Pillow raises nearly any type
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{name} cannot be decoded ({reason}); replace the file.") from error


def _check_header(image: Image.Image, name: str, size: int, resize: bool) -> None:
    """Refuses an image by its header, before memory is spent on its pixels."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise InputError(f"{name} is {width} x {height} pixels, too many; give a smaller image.")
    if image.size != (size, size) and not resize:
        found = f"{width} x {height} pixels, not {size} x {size}"
        raise InputError(f"{name} is {found}; align and crop it, or set resize.")
    if image.mode[0] in "IF":
        raise InputError(f"{name} has deep pixels ({image.mode}); save it with 8 bits a channel.")
