"""Downloads of known files: resumed where they stopped, bounded, and kept only if the SHA-256 fits.

A file is `PATH.part` until all of it is there and is what was expected; then it becomes `PATH`. One
that somebody downloaded by hand and put at `PATH` is checked and used alike.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from opom_jax.errors import InputError

SCHEMES = ("https",)
TIMEOUT = 30.0  # seconds without an answer
CHUNK = 1 << 16


def download(
    url: str,
    path: Path,
    size: int,
    sha256: str,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Brings one file.

    Args:
      url: https.
      path: of the file; its folder exists.
      size: bytes that it has; no more are ever read or stored.
      sha256: hex.
      progress: called with the bytes that are there and their number.

    Raises:
      InputError: no connection, a transfer that stopped (what came is kept and the next call goes
        on there), another size or SHA-256 (nothing is kept), no room.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        if path.exists():
            if _digest(path) != sha256:
                raise InputError(f"{path} is not {url} (its SHA-256 differs); remove it.")
            return
        start = part.stat().st_size if part.exists() else 0
        if start != size:
            _complete(url, part, start if start < size else 0, size, progress)
        if (found := _digest(part)) != sha256:
            part.unlink()
            raise InputError(
                f"{url} is another file than expected (SHA-256 {found}, not {sha256}) and was "
                "removed; try again, and if that does not help the file has changed."
            )
        os.replace(part, path)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path} cannot be written ({reason}); make room.") from error


def _complete(url: str, part: Path, start: int, size: int, progress) -> None:
    """Adds to `part`, which has `start` bytes, until it has `size`."""
    with _reaching(url, part):
        response, start = _opened(url, start)
    with response:
        if response.length is not None and start + response.length != size:
            raise InputError(_other_size(url, size))
        with open(part, "ab" if start else "wb") as file:
            for chunk in _chunks(response, url, part):
                start += file.write(chunk[: size - start + 1])
                file.flush()  # so that nothing is lost when the process is killed
                if start > size:
                    break
                if progress:
                    progress(start, size)
    if start > size:
        part.unlink()
        raise InputError(_other_size(url, size))
    if start < size:
        raise InputError(
            f"{url} stopped after {start} of {size} bytes; the same command continues there."
        )


def _other_size(url: str, size: int) -> str:
    return f"{url} has not the {size} bytes expected; the file has changed, so look for it by hand."


def _chunks(response: HTTPResponse, url: str, part: Path) -> Iterator[bytes]:
    while True:
        with _reaching(url, part):
            chunk = response.read(CHUNK)
        if not chunk:
            return
        yield chunk


class _Secure(HTTPRedirectHandler):
    """Follows no redirection to what is not in `SCHEMES`."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        _check_scheme(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_scheme(url: str) -> None:
    if urlsplit(url).scheme not in SCHEMES:
        raise InputError(f"{url} is not {' or '.join(SCHEMES)}; nothing was downloaded.")


def _opened(url: str, start: int) -> tuple[HTTPResponse, int]:
    """A response, and the byte of the file with which it begins: `start`, or 0 if the server does
    not go on there."""
    if start:
        with suppress(HTTPError):  # 416: the server's file is shorter
            response = _request(url, {"Range": f"bytes={start}-"})
            ranges = response.headers.get("Content-Range", "")
            if response.status == 206 and ranges.startswith(f"bytes {start}-"):
                return response, start
            response.close()
    return _request(url, {}), 0


def _request(url: str, headers: dict[str, str]) -> HTTPResponse:
    _check_scheme(url)
    headers = {"User-Agent": "opom-jax", "Accept-Encoding": "identity"} | headers
    return build_opener(_Secure).open(Request(url, headers=headers), timeout=TIMEOUT)


@contextmanager
def _reaching(url: str, part: Path) -> Iterator[None]:
    """Turns what a connection raises into a sentence."""
    try:
        yield
    except (OSError, HTTPException) as error:
        cause = error.reason if isinstance(error, URLError) else error
        reason = f"no answer in {TIMEOUT:.0f} s" if isinstance(cause, TimeoutError) else cause
        if isinstance(error, HTTPError):
            reason = f"HTTP status {error.code}"
        raise InputError(
            f"{url} cannot be fetched ({reason}); try again later, or download it by hand to "
            f"{part.with_suffix('')} and give the same command."
        ) from error


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
