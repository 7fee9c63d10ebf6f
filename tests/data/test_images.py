"""Pixels come out right, everything hostile is refused, and the reader's threads behave."""

import hashlib
import itertools
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from opom_jax.data import images
from opom_jax.data.images import inspect, read_batches, read_image
from opom_jax.errors import InputError

SIZE = 16


def noise(seed: int, height: int = SIZE, width: int = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path: Path, image: Image.Image | np.ndarray, **options) -> Path:
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    image.save(path, **options)
    return path


def refusal(path: str | Path, size: int = SIZE, resize: bool = False) -> str:
    with pytest.raises(InputError) as caught:
        read_image(path, size, resize)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".") and repr(str(path)) in message
    return message


def reader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("images")]


@pytest.fixture
def photos(tmp_path) -> list[Path]:
    return [save(tmp_path / f"{seed}.png", noise(seed)) for seed in range(10)]


@pytest.mark.parametrize("suffix", ["png", "bmp", "ppm", "tif", "webp"])
def test_lossless_formats_give_the_pixels(tmp_path, suffix):
    path = save(tmp_path / f"x.{suffix}", noise(0), **({"lossless": True} if "w" in suffix else {}))
    pixels = read_image(str(path), SIZE)
    assert pixels.dtype == np.uint8 and pixels.flags.writeable
    np.testing.assert_array_equal(pixels, noise(0))


def test_modes_become_rgb(tmp_path):
    grey = noise(0)[..., 0]
    three = np.stack([grey] * 3, axis=-1)
    alpha = noise(1)[..., :1]
    cases = {
        "L": (Image.fromarray(grey), three),
        "LA": (Image.fromarray(np.concatenate([three[..., :1], alpha], -1)), three),
        "RGBA": (Image.fromarray(np.concatenate([noise(2), alpha], -1)), noise(2)),
        "1": (Image.fromarray(grey > 99), np.where(three > 99, 255, 0)),
    }
    for mode, (image, expected) in cases.items():
        assert image.mode == mode
        path = save(tmp_path / f"{mode}.png", image)
        np.testing.assert_array_equal(read_image(path, SIZE), expected, err_msg=mode)


def test_palette_with_transparency_keeps_its_colours(tmp_path):
    palette = Image.fromarray(noise(0)).quantize(8)
    expected = np.asarray(palette.convert("RGB"))
    for name, alpha in {"bytes": bytes(range(8)), "index": 3}.items():
        path = save(tmp_path / f"{name}.png", palette, transparency=alpha)
        np.testing.assert_array_equal(read_image(path, SIZE), expected, err_msg=name)


def test_cmyk_becomes_rgb(tmp_path):
    red = Image.new("RGB", (SIZE, SIZE), (255, 0, 0)).convert("CMYK")
    assert read_image(save(tmp_path / "x.jpg", red), SIZE)[8, 8] == pytest.approx(
        [255, 0, 0], abs=9
    )


def test_deep_colour_is_cut_to_8_bits(tmp_path):
    path = tmp_path / "x.ppm"
    deep = noise(0).astype(">u2") * 257  # 0..255 stretched to 0..65535
    path.write_bytes(b"P6 %d %d 65535\n" % (SIZE, SIZE) + deep.tobytes())
    np.testing.assert_array_equal(read_image(path, SIZE), noise(0))


def test_animation_gives_its_first_frame(tmp_path):
    frames = [Image.fromarray(noise(seed)) for seed in range(2)]
    path = save(tmp_path / "x.png", frames[0], save_all=True, append_images=frames[1:])
    with Image.open(path) as image:
        assert image.n_frames == 2  # pyright: ignore[reportAttributeAccessIssue]
    np.testing.assert_array_equal(read_image(path, SIZE), noise(0))


def test_exif_orientation_is_not_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "x.png", noise(0), exif=exif)
    np.testing.assert_array_equal(read_image(path, SIZE), noise(0))


def test_resize_is_antialiased_bilinear_and_only_on_request(tmp_path):
    path = save(tmp_path / "x.png", noise(0, height=4 * SIZE, width=2 * SIZE))
    message = refusal(path)
    assert "32 x 64 pixels, not 16 x 16" in message and "set resize" in message
    resized = read_image(path, SIZE, resize=True).astype(float)
    assert resized.shape == (SIZE, SIZE, 3)
    # White noise of std 74 keeps about half of it without antialiasing, far less with.
    assert abs(resized.mean() - 127.5) < 4 and resized.std() < 30
    same = save(tmp_path / "same.png", noise(1))
    np.testing.assert_array_equal(read_image(same, SIZE, resize=True), noise(1))


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((SIZE, SIZE), np.uint16),
        np.zeros((SIZE, SIZE), np.int32),
        np.zeros((SIZE, SIZE), np.float32),
    ],
    ids=["I;16", "I", "F"],
)
def test_deep_pixels_are_refused(tmp_path, pixels):
    assert "save it with 8 bits" in refusal(save(tmp_path / "x.tif", pixels))


@pytest.mark.parametrize(
    ("suffix", "options"),
    [("jpg", {}), ("jpg", {"progressive": True}), ("png", {}), ("bmp", {}), ("webp", {})],
)
@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_truncated_files_are_refused(tmp_path, suffix, options, share):
    path = save(tmp_path / f"x.{suffix}", noise(0), **options)
    read_image(path, SIZE)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert "replace the file" in refusal(path)


@pytest.mark.parametrize(
    "data", [b"", b"hello\n", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", bytes(999)]
)
def test_what_is_no_image_is_refused(tmp_path, data):
    path = tmp_path / "new\nline.jpg"
    path.write_bytes(data)
    with pytest.raises(InputError, match="replace the file") as caught:
        read_image(path, SIZE)
    assert "\n" not in str(caught.value) and "new\\nline.jpg" in str(caught.value)


def test_formats_that_run_programs_are_refused(tmp_path):
    path = tmp_path / "x.jpg"
    save(path, noise(0), format="EPS")
    assert "is not a whole JPEG, PNG" in refusal(path)


def test_folders_pipes_and_missing_files_are_refused(tmp_path, photos):
    (tmp_path / "link.jpg").symlink_to(tmp_path / "gone.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert "is a folder or device" in refusal(tmp_path)
    assert "is a folder or device" in refusal(tmp_path / "pipe.jpg")
    assert "does not exist" in refusal(tmp_path / "gone.jpg")
    assert "does not exist" in refusal(tmp_path / "link.jpg")
    assert "does not exist" in refusal(tmp_path / "nul\0.jpg")
    assert "does not exist" in refusal(photos[0] / "x.jpg")
    assert "cannot be read" in refusal(tmp_path / ("x" * 5000))


def test_permission_denied_is_refused(photos):
    photos[0].chmod(0)
    if os.access(photos[0], os.R_OK):
        pytest.skip("this user (root) may read every file")
    assert "Permission denied" in refusal(photos[0])


def test_bombs_are_refused_by_their_header(tmp_path, monkeypatch):
    path = save(tmp_path / "x.bmp", noise(0))
    data = bytearray(path.read_bytes())
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    for side, reason in {8193: "too many", 60000: "DecompressionBombError"}.items():
        data[18:26] = side.to_bytes(4, "little") * 2
        path.write_bytes(data)
        assert reason in refusal(path, resize=True)


def test_wrong_size_is_refused_before_decoding(photos, monkeypatch):
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    message = refusal(photos[0], size=8)
    assert message.startswith(f"{str(photos[0])!r} is 16 x 16 pixels, not 8 x 8;")


def test_inspect_is_the_documented_digest(photos):
    expected = hashlib.sha256()
    for photo in photos:
        data = photo.read_bytes()
        expected.update(len(data).to_bytes(8, "big") + hashlib.sha256(data).digest())
    assert inspect(photos, SIZE) == inspect(photos, SIZE, workers=1) == expected.hexdigest()
    assert inspect(photos[::-1], SIZE) != expected.hexdigest()
    assert inspect([], SIZE) == hashlib.sha256().hexdigest()


def test_inspect_sees_bytes_that_decode_alike(photos):
    before = inspect(photos, SIZE)
    photos[3].write_bytes(photos[3].read_bytes() + b"x")
    assert inspect(photos, SIZE) != before


def test_inspect_names_the_first_bad_file_in_list_order(photos):
    photos[7].write_bytes(b"")
    photos[4].write_bytes(photos[4].read_bytes()[:200])
    many = photos[:4] * 40 + photos
    with pytest.raises(InputError, match="4.png"):
        inspect(many, SIZE, workers=8)
    assert not reader_threads()


def test_inspect_reports_progress_and_stays_bounded(photos):
    taken, calls = 0, []

    class Recorded(list):
        def __getitem__(self, chosen):
            nonlocal taken
            part = super().__getitem__(chosen)
            taken += len(part)
            return part

    def progress(done: int, total: int) -> None:
        calls.append((done, total, taken - done))

    inspect(Recorded(photos * 100), SIZE, progress=progress)
    done, totals, ahead = zip(*calls, strict=True)
    assert len(done) > 5 and list(done) == sorted(done) and done[-1] == taken == 1000
    assert set(totals) == {1000} and 0 < max(ahead) <= 200


def test_inspect_checks_sizes(photos):
    with pytest.raises(InputError, match="0.png"):
        inspect(photos, 8)
    inspect(photos, 8, resize=True)


@pytest.mark.parametrize(("workers", "prefetch"), [(1, 0), (4, 2), (2, 50)])
def test_batches_come_in_order(photos, workers, prefetch):
    batches = [photos[:4], photos[4:8], [], photos[8:]]
    read = list(read_batches(iter(batches), SIZE, workers=workers, prefetch=prefetch))
    assert [batch.shape for batch in read] == [(n, SIZE, SIZE, 3) for n in (4, 4, 0, 2)]
    assert all(batch.dtype == np.uint8 for batch in read)
    np.testing.assert_array_equal(np.concatenate(read), [noise(seed) for seed in range(10)])
    assert not reader_threads()


def test_batches_are_resized_on_request(photos):
    (batch,) = read_batches([photos[:2]], 8, resize=True)
    np.testing.assert_array_equal(batch[1], read_image(photos[1], 8, resize=True))


def test_batches_are_decoded_ahead_but_no_further_than_prefetch(photos, monkeypatch):
    taken = []
    decoded = threading.Semaphore(0)

    def counted(*args):
        decoded.release()
        return real(*args)

    real = images.read_image
    monkeypatch.setattr(images, "read_image", counted)

    def endless():
        for k in itertools.count():
            taken.append(k)
            yield photos[:3]

    stream = read_batches(endless(), SIZE, prefetch=2)
    next(stream)
    for _ in range(9):  # this batch and two more, though only one was asked for
        assert decoded.acquire(timeout=10)
    assert taken == [0, 1, 2] and not decoded.acquire(timeout=0.05)
    next(stream)
    assert taken == [0, 1, 2, 3]
    stream.close()
    assert not reader_threads()


def test_closing_cancels_what_has_not_begun(photos, monkeypatch):
    begun = []
    gate = threading.Event()

    def slow(path, *args):
        begun.append(path)
        if len(begun) > 1:
            gate.wait(10)
        return real(path, *args)

    real = images.read_image
    monkeypatch.setattr(images, "read_image", slow)
    stream = read_batches([photos[:1], photos[1:]], SIZE, workers=1, prefetch=1)
    next(stream)
    threading.Timer(0.1, gate.set).start()
    stream.close()
    assert len(begun) <= 2 and not reader_threads()


def test_a_bad_image_is_raised_when_its_batch_is_due(photos):
    photos[5].write_bytes(b"")
    stream = read_batches([photos[:4], photos[4:8], photos[8:]], SIZE)
    assert len(next(stream)) == 4
    with pytest.raises(InputError, match="5.png"):
        next(stream)
    assert not reader_threads()
