"""The page of an HTML report: its head, its style, and its tables. One file, which asks no server for anything."""

from __future__ import annotations

from eccos_core.evaluation.palette import INK
from eccos_core.evaluation.report_tables import ReportTable
from eccos_core.io.safe_text import html_text

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"


def render_page(title: str, body: str, style: str = "") -> str:
    """Return a whole page. title: any text. body: HTML. style: CSS after that of all reports."""
    return _PAGE.format(title=html_text(title), body=body, font=FONT, ink=INK, style=style)


def html_table(table: ReportTable) -> str:
    """Return a table that scrolls by itself where the window is narrow. Keyboard and screen reader reach it."""
    head = "".join(f'<th scope="col">{html_text(name)}</th>' for name in table.header)
    lines = [
        f'<tr class="{html_text(role)}"><th scope="row">{html_text(row[0])}</th>'
        + "".join(f"<td>{html_text(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row, role in zip(table.rows, table.roles, strict=True)
    ]
    return (
        f'<div class=wide role="region" tabindex="0" aria-label="{html_text(table.title)}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ --ink: {ink}; --page: #fff; --faint: #5b6672; --line: #d9dee4; --own: #fff4ec }}
body {{ font: 16px/1.55 {font}; color: var(--ink); background: var(--page);
  margin: 2.2rem auto; max-width: 1080px; padding: 0 1.2rem }}
h1 {{ font-size: 1.7rem; margin: 0 0 .3rem }}
h1, p {{ overflow-wrap: anywhere }}
h2 {{ font-size: 1.2rem; margin: 2.4rem 0 .4rem }}
.lead {{ font-size: 1.05rem }}
.note {{ color: var(--faint); border-left: 3px solid var(--line); padding-left: .8rem }}
.wide {{ overflow-x: auto }}
table {{ border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; margin: .6rem 0 }}
th, td {{ padding: .3rem .8rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap }}
th:first-child, td:first-child {{ text-align: left }}
tbody th {{ font-weight: 400 }}
tr.eccos th, tr.eccos td {{ font-weight: 600; background: var(--own) }}
tr.single th, tr.single td {{ color: var(--faint) }}
{style}</style>
</head>
<body>
{body}
</body>
</html>
"""
