"""Write the report as one HTML file with interactive plots. The file contains plotly.js, so it opens offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eccos_core.evaluation.html_figures import (
    frontier_figure,
    latency_figure,
    promises_figure,
    reliability_figure,
)
from eccos_core.evaluation.html_page import html_table, render_page
from eccos_core.evaluation.report import EvaluationReport
from eccos_core.evaluation.report_tables import report_tables, summary
from eccos_core.io.files import atomic_writer
from eccos_core.io.safe_text import html_text


def write_html(report: EvaluationReport, path: str | Path) -> None:
    """Write the report as one self-contained HTML file of about 5 MB, most of it plotly.js."""
    with atomic_writer(Path(path)) as stream:
        stream.write(render_html(report).encode())


def render_html(report: EvaluationReport) -> str:
    """Render the whole page."""
    body = [
        f"<h1>{html_text(report.dataset or 'Evaluation')}</h1>",
        f"<p class=lead>{html_text(summary(report))}</p>",
        "<h2>Accuracy over cost</h2>",
        _plot(frontier_figure(report), first=True),
        "<p>Each line shows what a router can reach: the upper concave hull of its settings, from recorded costs and "
        "outcomes. Click a name to hide it. Double-click it to see it alone. Drag to zoom.</p>",
    ]
    figures = {
        "Kept promises": promises_figure,
        "Forecasts": reliability_figure,
        "Latency without encoding": latency_figure,
    }
    for table in report_tables(report):
        body.append(f"<h2>{html_text(table.title)}</h2>")
        if table.title in figures:
            body.append(_plot(figures[table.title](report)))
        body += [f"<p>{html_text(table.explanation)}</p>", html_table(table)]
    body += [f"<p class=note>{html_text(note)}</p>" for note in report.notes]
    return render_page(report.dataset or "eccos evaluation", "\n".join(body))


def _plot(figure: Any, *, first: bool = False) -> str:
    plot = figure.to_html(full_html=False, include_plotlyjs=first, config={"displaylogo": False, "responsive": True})
    return f"<div class=plot>{plot}</div>"
