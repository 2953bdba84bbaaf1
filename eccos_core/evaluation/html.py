"""The report as one HTML file with interactive plots. It holds everything it needs, plotly.js too: it opens offline."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from eccos_core.evaluation.metrics import Frontier
from eccos_core.evaluation.palette import FAINT, INK, REFERENCE, colours
from eccos_core.evaluation.report import (
    FORECAST_HEADER,
    FRONTIER_HEADER,
    LATENCY_HEADER,
    EvaluationReport,
    RouterResult,
    forecast_row,
    frontier_row,
    latency_row,
)
from eccos_core.io.files import atomic_writer
from eccos_core.io.optional import needs_extra

_DASHES = {"random_mix": "dash", "prior": "dot"}
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"


def write_html(report: EvaluationReport, path: str | Path) -> None:
    """Write the report as one self-contained HTML file of about 5 MB, most of it plotly.js."""
    with atomic_writer(Path(path)) as stream:
        stream.write(html_page(report).encode())


def html_page(report: EvaluationReport) -> str:
    """The whole page."""
    results = list(report.results.values())
    trusted = [result for result in results if result.calibration is not None]
    timed = [result for result in results if result.latency is not None]
    best = report.best_single
    body = [
        f"<h1>{escape(report.dataset or 'Evaluation')}</h1>",
        f"<p class=lead>{report.train:,} training and {report.test:,} test questions, {len(report.models)} models. "
        f"Best single model: <b>{escape(best.model)}</b>, accuracy {best.accuracy:.3f} at "
        f"{1000 * best.usd_per_question:.4g} USD per 1,000 questions.</p>",
        _section("Accuracy over cost", _frontier_figure(report), first=True),
        "<p>Every line is what a router can reach: the upper concave hull of its settings, charged at what the chosen "
        "models really cost and answered. Click a name to hide it, double-click to see it alone, drag to zoom.</p>",
        "<h2>In numbers</h2><p>Cost to reach 90, 95, 98 and 100 % of the best single model's accuracy, as a share of "
        "its cost (less is better); area: mean accuracy over all budgets up to its cost (more is better).</p>",
        _table(FRONTIER_HEADER, [frontier_row(result) for result in results], [result.role for result in results]),
    ]
    if trusted:
        body += [
            _section("Can the forecasts be trusted?", _reliability_figure(report, trusted)),
            "<p>Forecast probability of a good answer against how often it came true, all models together; the size of "
            "a dot is the number of forecasts. On the diagonal is right.</p>",
            _table(FORECAST_HEADER, [forecast_row(result) for result in trusted], [r.role for r in trusted]),
        ]
    if timed:
        body += [
            _section("Latency of a decision", _latency_figure(report, timed)),
            _table(LATENCY_HEADER, [latency_row(result) for result in timed], [r.role for r in timed]),
        ]
        body += [
            f"<p>Encoder <b>{escape(role)}</b>: {escape(facts.name)}, {facts.dimensions} dimensions, "
            f"{facts.encode_ms:.2f} ms for one question; the times above come on top.</p>"
            for role, facts in report.encoders.items()
        ]
    body += [f"<p class=note>{escape(note)}</p>" for note in report.notes]
    return _PAGE.format(title=escape(report.dataset or "eccos evaluation"), body="\n".join(body), font=_FONT, ink=INK)


def _frontier_figure(report: EvaluationReport) -> Any:
    with needs_extra("report", "an HTML report"):
        import plotly.graph_objects as go

    figure = go.Figure()
    palette = colours(report.results)
    for result in report.results.values():
        if result.role == "single" or result.name == "oracle":
            continue
        costs, accuracies = _dense(result.score.frontier)
        figure.add_scatter(
            x=costs,
            y=accuracies,
            mode="lines",
            name=escape(result.name),
            line={
                "color": palette[result.name],
                "width": 3.2 if result.role == "eccos" else 1.8,
                "dash": _DASHES.get(result.name, "solid"),
            },
            hovertemplate="%{y:.1%} at %{x:.3g} USD per 1,000",
        )
    singles = [result for result in report.results.values() if result.role == "single"]
    figure.add_scatter(
        x=[1000 * float(result.score.frontier.cost_usd[0]) for result in singles],
        y=[result.score.best_accuracy for result in singles],
        mode="markers+text",
        name="single models",
        text=[escape(result.name) for result in singles],
        textposition=_text_places(singles),
        textfont={"size": 11, "color": INK},
        marker={"color": INK, "size": 9},
        hovertemplate="%{text}: %{y:.1%} at %{x:.3g} USD per 1,000<extra></extra>",
    )
    oracle = report.results["oracle"].score.frontier
    figure.add_scatter(
        x=[1000 * float(oracle.cost_usd[-1])],
        y=[float(oracle.accuracy[-1])],
        mode="markers+text",
        name="oracle",
        text=["oracle"],
        textposition="middle right",
        marker={"symbol": "star", "size": 16, "color": "#e6b000"},
        hovertemplate="oracle: %{y:.1%} at %{x:.3g} USD per 1,000<extra></extra>",
    )
    costs = [float(result.score.frontier.cost_usd[0]) for result in singles]
    logarithmic = min(costs) > 0 and max(costs) > 6 * min(costs)
    _style(figure, 560)
    figure.update_xaxes(
        title="USD per 1,000 questions" + (" (logarithmic)" if logarithmic else ""),
        type="log" if logarithmic else "linear",
        tickformat="~g",
    )
    if logarithmic:
        low, high = 1000 * min(costs), 1000 * max(costs)
        figure.update_xaxes(range=[np.log10(low / 1.6), np.log10(high * 2.2)], dtick="D2")
    figure.update_yaxes(title="answered well", tickformat=".0%")
    _zoom_buttons(figure, report)
    return figure


def _zoom_buttons(figure: Any, report: EvaluationReport) -> None:
    """Two views: everything, and the strip where routers differ (where the page opens when models are far apart)."""
    gains = [result.score.best_accuracy for result in report.results.values()]
    lines = [result for result in report.results.values() if result.role != "single" and result.name != "oracle"]
    strip_top = max(result.score.best_accuracy for result in lines)
    strip_low = min(float(report.results["random_mix"].score.frontier.accuracy[0]), strip_top - 0.02)
    margin = 0.12 * (strip_top - strip_low)
    strip = [strip_low - 2 * margin, strip_top + margin]
    spread = max(gains) - min(gains)
    everything = [min(gains) - 0.06 * spread, max(gains) + 0.06 * spread]
    figure.update_yaxes(range=everything)
    buttons = [
        {"label": "everything", "method": "relayout", "args": [{"yaxis.range": everything}]},
        {"label": "where routers differ", "method": "relayout", "args": [{"yaxis.range": strip}]},
    ]
    if strip[1] - strip[0] < 0.5 * (everything[1] - everything[0]):
        buttons.reverse()
        figure.update_yaxes(range=strip)
    place = {"type": "buttons", "direction": "right", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"}
    figure.update_layout(updatemenus=[{**place, "buttons": buttons, "bgcolor": "white", "bordercolor": FAINT}])
    figure.update_layout(margin={"t": 60})


def _reliability_figure(report: EvaluationReport, trusted: Iterable[RouterResult]) -> Any:
    with needs_extra("report", "an HTML report"):
        import plotly.graph_objects as go

    figure = go.Figure()
    palette = colours(report.results)
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", name="perfect", line={"color": REFERENCE, "dash": "dash"}, hoverinfo="skip"
    )
    for result in trusted:
        if result.calibration is None:
            continue
        binned = result.calibration.reliability
        figure.add_scatter(
            x=binned.forecast,
            y=binned.outcome,
            mode="lines+markers",
            name=escape(result.name),
            line={"color": palette[result.name], "width": 2.4 if result.role == "eccos" else 1.4},
            marker={"size": 4 + 16 * np.sqrt(binned.count / binned.count.max())},
            customdata=binned.count,
            visible=True if result.role == "eccos" or result.name == "prior" else "legendonly",
            hovertemplate="forecast %{x:.3f}, came true %{y:.3f} (%{customdata:,} forecasts)",
        )
    _style(figure, 480)
    figure.update_xaxes(title="forecast probability of a good answer", range=[-0.02, 1.02], dtick=0.2)
    figure.update_yaxes(title="share of good answers", range=[-0.02, 1.02], dtick=0.2)
    return figure


def _latency_figure(report: EvaluationReport, timed: Iterable[RouterResult]) -> Any:
    with needs_extra("report", "an HTML report"):
        import plotly.graph_objects as go

    palette = colours(report.results)
    rows = [(result.name, result.latency, result.reads) for result in timed if result.latency is not None]
    encode = [report.encoders[reads].encode_ms if reads in report.encoders else 0.0 for _, _, reads in rows]
    names = [name for name, _, _ in rows]
    figure = go.Figure()
    figure.add_bar(
        y=names,
        x=encode,
        orientation="h",
        name="encoding the question",
        marker={"color": FAINT},
        hovertemplate="encoding: %{x:.2f} ms<extra></extra>",
    )
    figure.add_bar(
        y=names,
        x=[latency.single_ms for _, latency, _ in rows],
        orientation="h",
        name="forecast or rule",
        marker={"color": [palette[name] for name in names]},
        showlegend=False,
        hovertemplate="%{y}: %{x:.2f} ms<extra></extra>",
    )
    _style(figure, 140 + 32 * len(names))
    figure.update_layout(barmode="stack")
    figure.update_xaxes(title="milliseconds for one request: encoding (grey) and deciding (colour)")
    figure.update_yaxes(autorange="reversed", gridcolor="white")
    return figure


def _style(figure: Any, height: int) -> None:
    """One look: white, faint grid, the legend above the plot where it covers nothing."""
    figure.update_layout(
        height=height,
        template="none",
        paper_bgcolor="white",
        plot_bgcolor="white",
        font={"family": _FONT, "size": 13, "color": INK},
        legend={"x": 1.02, "xanchor": "left", "y": 1, "yanchor": "top"},
        margin={"l": 90, "r": 24, "t": 40, "b": 60},
        hoverlabel={"font": {"size": 13}},
    )
    figure.update_xaxes(gridcolor=FAINT, zeroline=False, linecolor=INK, automargin=True)
    figure.update_yaxes(gridcolor=FAINT, zeroline=False, linecolor=INK, automargin=True)


def _text_places(singles: list[RouterResult]) -> list[str]:
    """Where each single model's name goes: away from the nearest other dot."""
    places = []
    costs = np.array([np.log10(max(float(r.score.frontier.cost_usd[0]), 1e-12)) for r in singles])
    gains = np.array([r.score.best_accuracy for r in singles])
    middle = (costs.min() + costs.max()) / 2
    for position, (cost, gain) in enumerate(zip(costs, gains, strict=True)):
        near = (np.abs(gains - gain) < 0.035) & (np.arange(len(singles)) != position)
        to_the_right = near & (costs >= cost) & (costs - cost < 0.8)
        if cost > middle + 0.6 * (costs.max() - middle):
            places.append("bottom left" if near.any() and gains[near].max() > gain else "top left")
        elif to_the_right.any():
            places.append("bottom right" if gains[to_the_right].min() > gain else "top right")
        else:
            places.append("middle right")
    return places


def _dense(frontier: Frontier) -> tuple[list[float], list[float]]:
    """USD per 1,000 and accuracy with many points: a straight line in USD is bent on a logarithmic axis."""
    low, high = float(frontier.cost_usd[0]), float(frontier.cost_usd[-1])
    between = np.geomspace(low, high, 120) if low > 0 else np.linspace(low, high, 120)
    every = np.unique(np.concatenate([frontier.cost_usd, np.clip(between, low, high)]))
    gains = np.interp(every, frontier.cost_usd, frontier.accuracy)
    return (1000 * every).round(9).tolist(), gains.round(6).tolist()


def _section(title: str, figure: Any, *, first: bool = False) -> str:
    plot = figure.to_html(full_html=False, include_plotlyjs=first, config={"displaylogo": False, "responsive": True})
    return f"<h2>{escape(title)}</h2>\n<div class=plot>{plot}</div>"


def _table(header: Iterable[str], rows: Iterable[Iterable[str]], roles: Iterable[str]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    lines = [
        f'<tr class="{escape(role)}">' + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
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
