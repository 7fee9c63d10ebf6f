"""Results as one HTML file for a stranger: no script, nothing fetched, all of it inside."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from opom_jax.evaluation.identification import TOP
from opom_jax.evaluation.table import SHOWN, Table, best, groups, percent, with_mean
from opom_jax.files import writing


class Example(NamedTuple):
    """One photo of one person, with and without the person's mask.

    Attributes:
      name: the person's, as shown.
      surrogate, method: what the mask was made with.
      original, protected: u8[H,W,3].
      mask: f32[H,W,3] in -epsilon..epsilon.
      psnr, ssim: of the protected photo, see `quality.py`.
      similarity: target -> cosine to another photo of the person without and with the mask, -1..1.
      epsilon: largest change of a value, of 255.
    """

    name: str
    surrogate: str
    method: str
    original: np.ndarray
    mask: np.ndarray
    protected: np.ndarray
    psnr: float
    ssim: float
    similarity: Mapping[str, tuple[float, float]]
    epsilon: float = 8.0


def write(
    path: Path,
    title: str,
    table: Table,
    examples: Sequence[Example],
    facts: Iterable[tuple[str, object]],
    words: Iterable[tuple[str, object]] = (),
    strangers: int | None = None,
) -> None:
    """Writes the page, whole or not at all.

    Args:
      path: the .html file.
      title: its heading.
      table: at least one row; the page says that no target took part in making a mask.
      examples: may be none.
      facts: (label, value), listed at the end.
      words: (word, what it means), listed before them.
      strangers: distractors in the gallery, if one number holds for the whole table.

    Raises:
      InputError: the file cannot be written.
    """
    page = _PAGE.format(
        title=escape(title),
        style=Path(__file__).with_suffix(".css").read_text("utf-8"),
        crowd="strangers" if strangers is None else f"{strangers:,} photos of strangers",
        tiles=_tiles(table, examples),
        examples=_examples(examples),
        bars=_bars(table),
        table=_numbers(table),
        facts=_list("How this was made", facts),
        words=_list("What the words mean", words),
    )
    with writing(path) as partial:
        partial.write_bytes(page.encode("utf-8", "replace"))  # names of folders may be no Unicode


def _list(title: str, pairs: Iterable[tuple[str, object]]) -> str:
    found = "".join(_pair(escape(str(label)), escape(str(value))) for label, value in pairs)
    return f'<section><h2>{title}</h2><dl class="facts">{found}</dl></section>' if found else ""


def _pair(label: str, value: str) -> str:
    return f"<div><dt>{label}</dt><dd>{value}</dd></div>"


def _tiles(table: Table, examples: Sequence[Example]) -> str:
    rates = table.rates[:, :, 0]
    top = int(rates.mean(1).argmax())
    surrogate, method = map(escape, table.rows[top])
    before, after = percent(table.none[:, 0].mean()), percent(rates[top].mean())
    low, high = percent(rates[top].min()), percent(rates[top].max())
    tiles = f"""<li class="main"><p><b>{before} %</b> <i>→</i> <b>{after} %</b></p><span>of searches
do not find the person: without a mask, and with {method} masks made with {surrogate}, the best row
of the table (from {low} to {high} % by network)</span></li>"""
    if examples:
        decibels = _decibels(float(np.mean([example.psnr for example in examples])))
        most = max(example.epsilon for example in examples)
        tiles += f"""<li><p><b>{decibels}</b></p><span>mean PSNR of the photos below; a mask changes
no colour value by more than {most:g} of 255</span></li>"""
    return (
        tiles
        + f"""<li><p><b>{table.tests:,}</b></p><span>searches behind each number of the
table</span></li>"""
    )


def _decibels(value: float) -> str:
    return f"{value:.1f} dB" if np.isfinite(value) else "∞ dB"


def _examples(examples: Sequence[Example]) -> str:
    if not examples:
        return ""
    low = min([0.0, *(v for e in examples for pair in e.similarity.values() for v in pair)])
    return f"""<section><h2>What it looks like</h2><p class="note">The bars compare the photo with
another photo of the same person, as each network sees them: cosine similarity, 1 for equal photos.
<span class="key before"></span>without the mask <span class="key after"></span>with it</p>
{"".join(_example(example, low) for example in examples)}</section>"""


def _example(e: Example, low: float) -> str:
    name = escape(e.name)
    strong = np.rint(np.clip(128.0 + 127.0 * e.mask / e.epsilon, 0, 255)).astype(np.uint8)
    pictures = (
        _figure(e.original, "Original", f"Photo of {name} without a mask")
        + _figure(strong, f"Mask, {127 / e.epsilon:.0f} × stronger", f"The mask of {name} on grey")
        + _figure(e.protected, "Protected", f"The same photo of {name} with the mask added")
    )
    pairs = "".join(
        _pair(escape(target), _similarity(*pair, low)) for target, pair in e.similarity.items()
    )
    return f"""<article><div><h3>{name}</h3><p class="note">{escape(e.method)} mask made with
{escape(e.surrogate)}</p><div class="pictures">{pictures}</div><p class="quality">PSNR
<b>{_decibels(e.psnr)}</b> SSIM <b>{e.ssim:.3f}</b></p></div><dl class="pairs">{pairs}</dl>
</article>"""


def _figure(picture: np.ndarray, caption: str, alt: str) -> str:
    data = BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(data, "PNG")
    code = base64.b64encode(data.getvalue()).decode()
    height, width = picture.shape[:2]
    return f"""<figure><img src="data:image/png;base64,{code}" alt="{alt}" width="{width}"
height="{height}"><figcaption>{caption}</figcaption></figure>"""


def _similarity(before: float, after: float, low: float) -> str:
    scale = 100 / (1 - low)
    bars = "".join(
        f'<rect class="{kind}" x="{(min(value, 0) - low) * scale:.2f}%" y="{y}" height="6" rx="1" '
        f'width="{abs(value) * scale:.2f}%"/>'
        for kind, value, y in (("before", before, 1), ("after", after, 9))
    )
    zero = f"{-low * scale:.2f}%"
    text = f"{before:z.2f} → <b>{after:z.2f}</b>".replace("-", "\N{MINUS SIGN}")
    return f"""<svg height="16" aria-hidden="true">{bars}<line class="zero" x1="{zero}" x2="{zero}"
y2="16"/></svg><span>{text}</span>"""


def _bars(table: Table) -> str:
    blocks = ["<div><h3></h3><div>" + _bar("no mask", table.targets, table.none[:, 0], "before")]
    for surrogate, rows in groups(table).items():
        blocks.append(f"<div><h3>{escape(surrogate)}</h3><div>")
        for row in rows:
            blocks[-1] += _bar(table.rows[row][1], table.targets, table.rates[row, :, 0], "after")
    marks = "".join(f"<i>{x}</i>" for x in ("0", "25", "50", "75", "100 %"))
    blocks[-1] += f'<div class="axis" aria-hidden="true">{marks}</div>'
    return "</div></div>".join([*blocks, ""])


def _bar(method: str, targets: Sequence[str], rates: np.ndarray, kind: str) -> str:
    ticks = "".join(
        f'<line class="tick" x1="{rate:.2f}%" x2="{rate:.2f}%" y1="2" y2="18">'
        f"<title>{escape(target)}: {percent(rate)} %</title></line>"
        for target, rate in zip(targets, rates, strict=True)
    )
    grid = "".join(f'<line class="grid" x1="{x}%" x2="{x}%" y2="24"/>' for x in range(0, 101, 25))
    mean, low, high = map(percent, (rates.mean(), rates.min(), rates.max()))
    return f"""<div class="bar"><span>{escape(method)}</span><svg height="20" role="img"
aria-label="{low} to {high} % by network">{grid}<rect class="{kind}" y="5" height="10" rx="2"
width="{rates.mean():.2f}%"/>{ticks}</svg><b>{mean}</b></div>"""


def _numbers(table: Table) -> str:
    names = [*map(escape, table.targets), "Mean"]
    rates, bold, none = with_mean(table.rates), best(table), with_mean(table.none)
    tops = "".join(f'<th scope="col">Top-{TOP[k]}</th>' for k in SHOWN) * len(names)
    heads = "".join(f'<th scope="colgroup" colspan="{len(SHOWN)}">{name}</th>' for name in names)
    parts = [f"<tbody>{_row('no mask', none, np.zeros(none.shape, bool))}</tbody>"]
    for surrogate, rows in groups(table).items():
        lines = "".join(_row(table.rows[row][1], rates[row], bold[row]) for row in rows)
        parts.append(f"""<tbody><tr class="group"><th scope="rowgroup"
colspan="{1 + len(SHOWN) * len(names)}"><span>Made with {escape(surrogate)}</span></th></tr>
{lines}</tbody>""")
    return f"""<thead><tr><th rowspan="2" scope="col">Method</th>{heads}</tr><tr>{tops}</tr></thead>
{"".join(parts)}"""


def _row(method: str, rates: np.ndarray, bold: np.ndarray) -> str:
    cells = ""
    for m in range(len(rates)):
        for k in SHOWN:
            text = f"<b>{percent(rates[m, k])}</b>" if bold[m, k] else percent(rates[m, k])
            cells += f'<td style="--v:{rates[m, k] / 100:.3f}">{text}</td>'
    return f'<tr><th scope="row">{escape(method)}</th>{cells}</tr>'


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style></head>
<body><main><header><h1>{title}</h1><p class="intro">A <strong>privacy mask</strong> is a faint
pattern, made once for one person, that is added to each of their photos before it is shared, so
that face recognition no longer tells whose it is. The networks that search here <strong>never took
part in making the masks</strong>: each mask was made with another network, its surrogate.
A <strong>protection rate</strong> is the percentage of searches in which the person is not found
first among {crowd}; higher is better.</p></header><ul class="tiles">{tiles}</ul>
{examples}
<section><h2>Protection by method</h2><p class="note">Top-1 protection rate in percent, grouped by
surrogate, the network that the masks were made with. Bar and number: mean over the networks that
search; thin marks: each of them.</p><div class="blocks">{bars}</div></section>
<section><h2>Every number</h2><p class="note">Protection rates in percent, by the network that
searches. Top&#8209;1: the person is not found first; Top&#8209;5: not among the first five.
Bold: the best method of a surrogate.</p><div class="scroll" role="region"
aria-label="All protection rates" tabindex="0"><table>{table}</table></div></section>
{words}
{facts}</main></body></html>
"""
