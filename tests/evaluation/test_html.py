"""The page: whole, self-contained, escaped, with every number that it draws."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from opom_jax.errors import InputError
from opom_jax.evaluation.html import Example, write
from opom_jax.evaluation.table import Table, percent, with_mean

VOID = {"meta", "img", "br"}
HOSTILE = "<script>alert(1)</script>\"'&{x}"
FACTS = [("Device", "one CPU"), ("Seconds", 12.5)]


class Page(HTMLParser):
    """Checks that tags are balanced; keeps attributes by tag, and the text outside <style>."""

    def __init__(self, source: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(source)
        self.close()
        self.text = " ".join(self.text.split())
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        assert len(attrs) == len(dict(attrs))
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data + " "

    def having(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


def table(surrogate="Softmax", target="SENet") -> Table:
    rng = np.random.default_rng(1)
    rows = ((surrogate, "FI-UAP"), (surrogate, "ConvexHull"), ("Other", "FI-UAP"))
    rates = np.sort(rng.uniform(20, 99, (3, 2, 3)), -1)[..., ::-1]
    return Table(rows, (target, "MobileNet"), rates, rng.uniform(0, 3, (2, 3)), 45000)


def example(name="Ada", **changes) -> Example:
    rng = np.random.default_rng(2)
    original = rng.integers(0, 256, (12, 10, 3)).astype(np.uint8)
    mask = rng.uniform(-4, 4, original.shape).astype(np.float32)
    similarity = {"SENet": (0.71, -0.12), "MobileNet": (0.66, -0.0001)}
    made = Example(name, "Softmax", "ConvexHull", original, mask, original, 33.3, 0.917, similarity)
    return made._replace(**changes)


@pytest.fixture
def written(tmp_path):
    def page(*arguments, **named) -> str:
        write(tmp_path / "page.html", *arguments, **named)
        assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
        return (tmp_path / "page.html").read_text("utf-8")

    return page


def test_every_number_is_there(written):
    t = table()
    page = Page(written("Masks", t, [example()], FACTS, strangers=13233))
    shown = page.text.split()
    for rates in (t.none, *t.rates):
        for rate in with_mean(rates)[:, :2].ravel():
            assert percent(rate) in shown
    words = ("45,000", "13,233", "33.3", "0.917", "0.71", "−0.12", "0.00", "ConvexHull", "12.5")
    for word in (*words, "Masks", "Ada", "Softmax", "Other", "SENet", "MobileNet", "one CPU"):
        assert word in page.text
    top = t.rates[:, :, 0].mean(1).max()
    tile = page.text.partition("What it looks like")[0]
    assert f"{percent(t.none[:, 0].mean())} % → {percent(top)} %" in tile


def test_self_contained(written):
    source = written("Masks", table(), [example(), example("Bob")], FACTS)
    page = Page(source)
    assert "http" not in source and "url(" not in source and "@import" not in source
    assert not {"script", "link", "iframe", "a", "object"} & {tag for tag, _ in page.tags}
    sources = re.findall(r"src=.{0,22}", source)
    assert len(sources) == 6 and set(sources) == {'src="data:image/png;base64'}
    assert all(image["alt"] for image in page.having("img"))


def test_pictures(written):
    e = example(epsilon=4.0)
    images = Page(written("Masks", table(), [e], FACTS)).having("img")
    pixels = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))))
        for image in images
    ]
    np.testing.assert_array_equal(pixels[0], e.original)
    np.testing.assert_array_equal(pixels[2], e.protected)
    np.testing.assert_allclose(pixels[1], 128 + 127 * e.mask / 4, atol=0.51)
    assert (images[0]["width"], images[0]["height"]) == ("10", "12")


def test_bars_are_as_long_as_their_numbers(written):
    t = table()
    page = Page(written("Masks", t, [example()], FACTS))
    widths = [float(r["width"].strip("%")) for r in page.having("rect")]
    cosines = np.array([0.71, 0.12, 0.66, 0.0001]) / 1.12 * 100  # the axis goes from -0.12 to 1
    means = [t.none[:, 0].mean(), *t.rates[:, :, 0].mean(1)]
    np.testing.assert_allclose(widths, [*cosines, *means], atol=0.0051)
    starts = [float(r["x"].strip("%")) for r in page.having("rect") if "x" in r]
    np.testing.assert_allclose(starts, np.array([12, 0, 12, 11.99]) / 1.12, atol=0.0051)
    ticks = [float(x["x1"].strip("%")) for x in page.having("line") if x["class"] == "tick"]
    np.testing.assert_allclose(ticks, [*t.none[:, 0], *t.rates[:, :, 0].ravel()], atol=0.0051)


def test_table_has_headers_and_rows_of_one_length(written):
    t = table()
    source = written("Masks", t, [], FACTS)
    page = Page(source)
    assert all("scope" in head for head in page.having("th"))
    body = re.findall(r"<tr>(.*?)</tr>", source.partition("<tbody>")[2], re.S)
    assert [line.count("<td") for line in body] == [2 * 3] * 4
    assert source.partition("<tbody>")[2].count("<b>") == 2 * 3
    assert "What it looks like" not in page.text  # no examples, no section


def test_hostile_names_are_text(written):
    e = example(HOSTILE, surrogate=HOSTILE, method=HOSTILE, similarity={HOSTILE: (0.5, 0.1)})
    t = table(HOSTILE, HOSTILE)
    t = t._replace(rows=((HOSTILE, HOSTILE), *t.rows))
    t = t._replace(rates=np.concatenate([t.rates[:1], t.rates]))
    source = written(HOSTILE, t, [e], [(HOSTILE, HOSTILE)])
    page = Page(source)
    assert "<script" not in source and not page.having("script")
    assert page.text.count(HOSTILE) >= 10
    assert page.having("img")[0]["alt"] == f"Photo of {HOSTILE} without a mask"
    usual = Page(written("Masks", table(), [example()], FACTS))
    assert {tag for tag, _ in page.tags} == {tag for tag, _ in usual.tags}


def test_names_that_are_no_unicode_and_equal_pictures(written):
    page = written("Masks", table(), [example("caf\udce9", psnr=np.inf)], FACTS)
    assert "caf?" in page and "∞ dB" in page


def test_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    path.write_text("old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(InputError, match="cannot be written"):
        write(path, "Masks", table(), [example()], FACTS)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
