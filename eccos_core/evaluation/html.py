"""Write the report as one HTML file with interactive plots. The file contains plotly.js, so it opens offline."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from eccos_core.evaluation.html_figures import FONT, frontier_figure, latency_figure, reliability_figure
from eccos_core.evaluation.palette import INK
from eccos_core.evaluation.report import (
    FORECAST_HEADER,
    FRONTIER_HEADER,
    LATENCY_HEADER,
    EvaluationReport,
    forecast_row,
    frontier_row,
    latency_row,
)
from eccos_core.io.files import atomic_writer
from eccos_core.io.safe_text import html_text


def write_html(report: EvaluationReport, path: str | Path) -> None:
    """Write the report as one self-contained HTML file of about 5 MB, most of it plotly.js."""
    with atomic_writer(Path(path)) as stream:
        stream.write(render_html(report).encode())


def render_html(report: EvaluationReport) -> str:
    """Render the whole page."""
    results = list(report.results.values())
    forecasters = [result for result in results if result.calibration is not None]
    timed = [result for result in results if result.latency is not None]
    best = report.best_single
    body = [
        f"<h1>{html_text(report.dataset or 'Evaluation')}</h1>",
        f"<p class=lead>{report.train:,} training and {report.test:,} test questions, {len(report.models)} models. "
        f"Best single model: <b>{html_text(best.model)}</b>, accuracy {best.accuracy:.3f} at "
        f"{1000 * best.usd_per_question:.4g} USD per 1,000 questions.</p>",
        _section("Accuracy over cost", frontier_figure(report), first=True),
        "<p>Each line shows what a router can reach: the upper concave hull of its settings, from recorded costs and "
        "outcomes. Click a name to hide it. Double-click it to see it alone. Drag to zoom.</p>",
        "<h2>In numbers</h2><p>The columns 0.90 to 1.00 show the cost to reach 90, 95, 98 and 100 % of the best single "
        "model's accuracy, as a share of its cost. Less is better. Area is the mean accuracy over all budgets up to "
        "its cost. More is better.</p>",
        _table(FRONTIER_HEADER, [frontier_row(result) for result in results], [result.role for result in results]),
    ]
    if forecasters:
        body += [
            _section("Can the forecasts be trusted?", reliability_figure(report, forecasters)),
            "<p>The plot compares the forecast probability of a good answer with how often the answer was good, for "
            "all models together. The size of a dot is the number of forecasts. Dots on the diagonal are right.</p>",
            _table(FORECAST_HEADER, [forecast_row(result) for result in forecasters], [r.role for r in forecasters]),
        ]
    if timed:
        body += [
            _section("Latency of a decision", latency_figure(report, timed)),
            _table(LATENCY_HEADER, [latency_row(result) for result in timed], [r.role for r in timed]),
        ]
        body += [
            f"<p>Encoder <b>{html_text(role)}</b>: {html_text(facts.name)}, {facts.dimensions} dimensions, "
            f"{facts.encode_ms:.2f} ms for one question. Add the times above to it.</p>"
            for role, facts in report.encoders.items()
        ]
    body += [f"<p class=note>{html_text(note)}</p>" for note in report.notes]
    return _PAGE.format(title=html_text(report.dataset or "eccos evaluation"), body="\n".join(body), font=FONT, ink=INK)


def _section(title: str, figure: Any, *, first: bool = False) -> str:
    plot = figure.to_html(full_html=False, include_plotlyjs=first, config={"displaylogo": False, "responsive": True})
    return f"<h2>{html_text(title)}</h2>\n<div class=plot>{plot}</div>"


def _table(header: Iterable[str], rows: Iterable[Iterable[str]], roles: Iterable[str]) -> str:
    head = "".join(f"<th>{html_text(name)}</th>" for name in header)
    lines = [
        f'<tr class="{html_text(role)}">' + "".join(f"<td>{html_text(cell)}</td>" for cell in row) + "</tr>"
        for row, role in zip(rows, roles, strict=True)
    ]
    return f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.55 {font}; color: {ink}; background: #fff;
  margin: 2.2rem auto; max-width: 1080px; padding: 0 1.2rem }}
h1 {{ font-size: 1.7rem; margin: 0 0 .3rem }}
h2 {{ font-size: 1.2rem; margin: 2.4rem 0 .4rem }}
.lead {{ font-size: 1.05rem }}
.note {{ color: #5b6672; border-left: 3px solid #d9dee4; padding-left: .8rem }}
.wide {{ overflow-x: auto }}
table {{ border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; margin: .6rem 0 }}
th, td {{ padding: .3rem .8rem; text-align: right; border-bottom: 1px solid #e6eaee; white-space: nowrap }}
th:first-child, td:first-child {{ text-align: left }}
tr.eccos td {{ font-weight: 600; background: #fff4ec }}
tr.single td {{ color: #5b6672 }}
</style>
</head>
<body>
{body}
</body>
</html>
"""
