"""Plots of a simulation's page: one frame, one style, and a caption that says the numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eccos_core.errors import InputError
from eccos_core.evaluation.figures import LINE_COLOURS, inline_svg, new_figure, style_frame
from eccos_core.evaluation.palette import INK, REFERENCE
from eccos_core.io.optional import needs_extra
from eccos_core.io.safe_text import html_text, printable

_INCHES = (4.7, 3.5)  # 338 units wide, so that 10 units of text stay readable at 360 pixels
MARKERS = "osD^vPX*"
PAGE_STYLE = """:root { color-scheme: light dark; --reference: #707a86;
  --c0: #d55e00; --c1: #0072b2; --c2: #009e73; --c3: #b8568f; --c4: #2b8fc7; --c5: #b57a00; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6eaef; --page: #12161b; --faint: #a5b0bc; --line: #37414c; --own: #2a2320; --reference: #8d98a5;
    --c0: #ff8534; --c1: #4aa8e8; --c2: #2cc79b; --c3: #e09cc4; --c4: #56b4e9; --c5: #e69f00; }
}
.plots { display: grid; grid-template-columns: minmax(0, 1fr); gap: 1rem 2rem }
@media (min-width: 60rem) { .plots { grid-template-columns: repeat(2, minmax(0, 1fr)) } }
figure { margin: 0; min-width: 0 } figcaption { color: var(--faint); font-size: .9rem }
svg { display: block; width: 100%; height: auto; max-width: 36rem }
summary { cursor: pointer; padding: .3rem 0 } :focus-visible { outline: 3px solid var(--c1); outline-offset: 2px }
@media print {
  :root { color-scheme: light } body { max-width: none; margin: 0 } .wide { overflow: visible }
  .plots { grid-template-columns: repeat(2, minmax(0, 1fr)) } figure, tr { break-inside: avoid }
  h2, summary { break-after: avoid } th, td { padding: .2rem .4rem; white-space: normal }
}
"""


def check_page(path: Path) -> None:
    """Raise `InputError` for a file name that is no HTML page's."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--report is {str(path)!r}, but the report is an HTML page. Give a name that ends in .html.")


def new_axes() -> tuple[Any, Any]:
    """Return a figure and its axes."""
    figure = new_figure(*_INCHES, dpi=72)
    axes = figure.subplots()
    axes.tick_params(colors=INK, labelsize=10)
    for spine in axes.spines.values():
        spine.set_color(REFERENCE)
    return figure, axes


def use_log_axis(axes: Any) -> None:
    """Give the x axis powers and their halves as ticks."""
    with needs_extra("report", "a page with plots"):
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def finish_figure(figure: Any, axes: Any, key: str, title: str, told: str) -> str:
    """Add the legend above the plot, and return the figure with its caption."""
    style_frame(axes)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=INK, fontsize=10)
    legend = figure.legend(
        loc="outside upper left",
        ncols=2,
        frameon=False,
        fontsize=10,
        labelcolor=INK,
        handletextpad=0.5,
        columnspacing=1,
    )
    for text in (*axes.get_yticklabels(), *legend.get_texts()):
        text.set_parse_math(False)
    return f"<figure>{inline_svg(figure, key, title, told)}<figcaption>{html_text(title)}</figcaption></figure>"


def colour(position: int) -> str:
    """Return the colour of a line or a point."""
    return LINE_COLOURS[position % len(LINE_COLOURS)]


def dash(position: int) -> str:
    """Return the dashes of a line, which differ where the colours come again."""
    return ("-", "--", ":", "-.")[position // len(LINE_COLOURS) % 4]


def short_name(name: str) -> str:
    """Return a name that fits beside a plot."""
    short = printable(name)
    return short if len(short) <= 24 else short[:23] + "…"


def draw_rows(axes: Any, names: Sequence[str], columns: Sequence[tuple[str, Sequence[float]]]) -> None:
    """Draw a row of points for each name. columns: a label and a value for each row."""
    for position, (label, values) in enumerate(columns):
        axes.plot(
            values,
            range(len(names)),
            linestyle="none",
            marker=MARKERS[position],
            color=colour(position),
            label=label,
        )
    axes.set_yticks(range(len(names)), [short_name(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    known = [value for _, values in columns for value in values if math.isfinite(value)]
    axes.set_xlim(0, 1.05 * max(known, default=1.0) or 1.0)
