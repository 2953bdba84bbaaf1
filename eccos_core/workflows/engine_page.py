"""Write a simulated serving engine as one HTML page. It opens offline, in light and dark, on a phone."""

from __future__ import annotations

from pathlib import Path

from eccos_core.evaluation.html_page import html_table, render_page
from eccos_core.io.files import atomic_writer
from eccos_core.io.safe_text import html_text
from eccos_core.simulation.serving import EngineResult
from eccos_core.workflows.engine_report import EngineReport, engine_summary, engine_tables
from eccos_core.workflows.page_figures import PAGE_STYLE, check_page, draw_rows, finish_figure, new_axes

_Columns = tuple[tuple[str, str], ...]
_FIRST: _Columns = (
    ("median", "first_token_median_s"),
    ("p95", "first_token_p95_s"),
    ("p99", "first_token_p99_s"),
)
_ANSWER: _Columns = (("median", "answer_median_s"), ("p95", "answer_p95_s"), ("p99", "answer_p99_s"))


def write_engine_page(report: EngineReport, path: Path) -> None:
    """Write the page, whole or not at all. Raises `InputError` for a suffix that is no HTML."""
    check_page(path)
    with atomic_writer(path) as stream:
        stream.write(render_engine(report).encode())


def render_engine(report: EngineReport) -> str:
    """Render the whole page."""
    title = f"Simulation of {report.engine}"
    body = [
        f"<main>\n<h1>{html_text(title)}</h1>",
        *(f"<p class=lead>{html_text(line)}</p>" for line in engine_summary(report)),
        '<div class="plots">',
        _plot(report, "gpu", "GPU time", "GPU seconds", (("in passes", "gpu_seconds"),)),
        _plot(report, "first", "Time to the first token", "seconds from arrival to first token", _FIRST),
        _plot(report, "answer", "Time to the answer", "seconds from arrival to answer", _ANSWER),
        "</div>",
    ]
    for table in engine_tables(report):
        body += [f"<h2>{html_text(table.title)}</h2>", f"<p>{html_text(table.explanation)}</p>", html_table(table)]
    return render_page(title, "\n".join([*body, "</main>"]), PAGE_STYLE)


def _plot(report: EngineReport, key: str, title: str, unit: str, columns: _Columns) -> str:
    """Draw a row of points for each scheduler."""
    figure, axes = new_axes()
    found: tuple[EngineResult, ...] = report.results
    values = [(label, [float(getattr(one, name)) for one in found]) for label, name in columns]
    draw_rows(axes, [one.scheduler for one in found], values)
    axes.set_xlabel(unit)
    told = "; ".join(
        f"{one.scheduler}: " + ", ".join(f"{label} {numbers[row]:.2f} s" for label, numbers in values)
        for row, one in enumerate(found)
    )
    return finish_figure(figure, axes, key, title, told)
