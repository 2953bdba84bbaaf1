"""What every picture by matplotlib shares: a figure without windows, the frame of its axes, and how it is saved."""

from __future__ import annotations

import io
import re
import warnings
from pathlib import Path
from typing import Any

from eccos_core.evaluation.palette import BASELINE_COLOURS, ECCOS_COLOURS, FAINT, INK, REFERENCE
from eccos_core.io.files import atomic_writer
from eccos_core.io.optional import needs_extra
from eccos_core.io.safe_text import html_text

LINE_COLOURS = (*ECCOS_COLOURS, *BASELINE_COLOURS[:2])
# where a page has its own colours for light and dark, its plots take those
PAGE_COLOURS = {
    INK: "var(--ink)",
    FAINT: "var(--line)",
    REFERENCE: "var(--reference)",
    **{colour: f"var(--c{position})" for position, colour in enumerate(LINE_COLOURS)},
}


def new_figure(width: float, height: float, dpi: int = 150) -> Any:
    """Return a figure of this size in inches."""
    with needs_extra("report", "a picture"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)  # not pyplot, which has windows and global state
    return figure


def style_frame(axes: Any) -> None:
    """Draw a faint grid behind the data, and no frame at the top and to the right."""
    axes.grid(True, which="major", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def set_title(axes: Any, title: str, pad: float | None = None) -> None:
    """Write the title of axes to the left."""
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", color=INK, pad=pad)


def save_figure(figure: Any, path: Path) -> None:
    """Write a picture, whole or not at all. The suffix says the format, PNG without one."""
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix.lstrip(".") or "png")
    with atomic_writer(path) as stream:
        stream.write(content.getvalue())


def inline_svg(figure: Any, key: str, title: str, description: str) -> str:
    """Return a figure as SVG for an HTML page: text as text, the page's colours, a title and a description.

    key: a word that no other picture of the page has. The page gives its colours as `--ink`, `--line`, `--reference`
    and `--c0` to `--c5`.
    """
    with needs_extra("report", "a picture"):
        from matplotlib import rc_context

    content = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": key}), warnings.catch_warnings():
        # the browser has glyphs that the font of matplotlib has not
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(content, format="svg", transparent=True, metadata={"Date": None})
    drawn = content.getvalue()
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn[drawn.index("<svg") :], flags=re.DOTALL)
    for colour, own in PAGE_COLOURS.items():
        drawn = drawn.replace(colour, own)
    box = re.search(r'viewBox="([^"]*)"', drawn)
    assert box is not None
    start = (
        f'<svg viewBox="{box[1]}" role="img" aria-labelledby="{key}-title {key}-desc">'
        f'<title id="{key}-title">{html_text(title)}</title><desc id="{key}-desc">{html_text(description)}</desc>'
    )
    drawn = re.sub(r"\bid=\"([^\"]+)\"", rf'id="{key}-\1"', drawn[drawn.index(">") + 1 :])
    drawn = re.sub(r"(url\(#|href=\"#)", rf"\g<1>{key}-", drawn)
    return start + drawn
