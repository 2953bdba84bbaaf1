"""Write the report as one HTML file with interactive plots. The file contains plotly.js, so it opens offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eccos_core.evaluation.html_figures import (
    FONT,
    frontier_figure,
    latency_figure,
    promises_figure,
    reliability_figure,
)
from eccos_core.evaluation.palette import INK
from eccos_core.evaluation.report import EvaluationReport
from eccos_core.evaluation.report_tables import ReportTable, report_tables, summary
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
        body += [f"<p>{html_text(table.explanation)}</p>", _table(table)]
    body += [f"<p class=note>{html_text(note)}</p>" for note in report.notes]
    return _PAGE.format(title=html_text(report.dataset or "eccos evaluation"), body="\n".join(body), font=FONT, ink=INK)


def _plot(figure: Any, *, first: bool = False) -> str:
    plot = figure.to_html(full_html=False, include_plotlyjs=first, config={"displaylogo": False, "responsive": True})
    return f"<div class=plot>{plot}</div>"


def _table(table: ReportTable) -> str:
    head = "".join(f"<th>{html_text(name)}</th>" for name in table.header)
    lines = [
        f'<tr class="{html_text(role)}">' + "".join(f"<td>{html_text(cell)}</td>" for cell in row) + "</tr>"
        for row, role in zip(table.rows, table.roles, strict=True)
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
