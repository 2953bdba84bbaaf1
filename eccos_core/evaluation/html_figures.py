"""Draw the interactive figures of the HTML report with plotly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from eccos_core.evaluation.charts import densify, prefers_log_axis
from eccos_core.evaluation.html_page import FONT
from eccos_core.evaluation.metrics import Frontier
from eccos_core.evaluation.palette import FAINT, INK, ORACLE, REFERENCE, assign_colours
from eccos_core.evaluation.plot_labels import place_boxes
from eccos_core.evaluation.report import EvaluationReport, RouterResult
from eccos_core.io.optional import needs_extra
from eccos_core.io.safe_text import html_text

_DASHES = {"random_mix": "dash", "prior": "dot"}
_POINTS_PER_LINE = 120
PLOT_PIXELS = (760.0, 440.0)  # the plotting area of a page of usual width
DOT_PIXELS = 6.0
CHARACTER_PIXELS, LINE_PIXELS = 6.6, 15.0  # of a name at size 11


def frontier_figure(report: EvaluationReport) -> Any:
    """Draw accuracy over cost, one line per router."""
    with needs_extra("report", "an HTML report"):
        import plotly.graph_objects as go

    figure = go.Figure()
    _add_routers(figure, report)
    singles = [result for result in report.results.values() if result.role == "single"]
    _add_points(figure, singles, report.results["oracle"].score.frontier)
    costs = [float(result.score.frontier.cost_usd[0]) for result in singles]
    logarithmic = prefers_log_axis(costs)
    _apply_style(figure, 560)
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
    _name_points(figure, singles, logarithmic)
    return figure


def _add_routers(figure: Any, report: EvaluationReport) -> None:
    """Draw the line of each router."""
    palette = assign_colours(report.results)
    for result in report.results.values():
        if result.role == "single" or result.name == "oracle":
            continue
        costs, accuracies = _curve(result.score.frontier)
        figure.add_scatter(
            x=costs,
            y=accuracies,
            mode="lines",
            name=html_text(result.name),
            line={
                "color": palette[result.name],
                "width": 3.2 if result.role == "eccos" else 1.8,
                "dash": _DASHES.get(result.name, "solid"),
            },
            hovertemplate="%{y:.1%} at %{x:.3g} USD per 1,000",
        )


def _add_points(figure: Any, singles: Sequence[RouterResult], oracle: Frontier) -> None:
    """Draw the single models as dots, and the oracle as a star."""
    figure.add_scatter(
        x=[1000 * float(result.score.frontier.cost_usd[0]) for result in singles],
        y=[result.score.best_accuracy for result in singles],
        mode="markers",
        name="single models",
        text=[html_text(result.name) for result in singles],
        marker={"color": INK, "size": 9},
        hovertemplate="%{text}: %{y:.1%} at %{x:.3g} USD per 1,000<extra></extra>",
    )
    figure.add_scatter(
        x=[1000 * float(oracle.cost_usd[-1])],
        y=[float(oracle.accuracy[-1])],
        mode="markers+text",
        name="oracle",
        text=["oracle"],
        textposition="middle right",
        marker={"symbol": "star", "size": 16, "color": ORACLE},
        hovertemplate="oracle: %{y:.1%} at %{x:.3g} USD per 1,000<extra></extra>",
    )


def _zoom_buttons(figure: Any, report: EvaluationReport) -> None:
    """Add buttons for two views: everything, and the range where routers differ (first if models differ much)."""
    accuracies = [result.score.best_accuracy for result in report.results.values()]
    lines = [result for result in report.results.values() if result.role != "single" and result.name != "oracle"]
    strip_top = max(result.score.best_accuracy for result in lines)
    strip_low = min(float(report.results["random_mix"].score.frontier.accuracy[0]), strip_top - 0.02)
    margin = 0.12 * (strip_top - strip_low)
    strip = [strip_low - 2 * margin, strip_top + margin]
    spread = max(accuracies) - min(accuracies)
    everything = [min(accuracies) - 0.06 * spread, max(accuracies) + 0.06 * spread]
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


def promises_figure(report: EvaluationReport) -> Any:
    """Draw the realised accuracy over the floor that was asked for, one line per router."""
    with needs_extra("report", "an HTML report"):
        import plotly.graph_objects as go

    figure = go.Figure()
    palette = assign_colours(report.results)
    kept = {name: result for name, result in report.results.items() if result.promises is not None}
    ends = [float(edge) for result in kept.values() if result.promises is not None for edge in result.promises.asked]
    figure.add_scatter(
        x=[min(ends, default=0.0), max(ends, default=1.0)],
        y=[min(ends, default=0.0), max(ends, default=1.0)],
        mode="lines",
        name="kept exactly",
        line={"color": REFERENCE, "dash": "dash"},
        hoverinfo="skip",
    )
    for name, result in kept.items():
        if result.promises is None:
            continue
        figure.add_scatter(
            x=result.promises.asked,
            y=result.promises.realised,
            mode="lines+markers",
            name=html_text(name),
            line={"color": palette[name], "width": 2.4 if result.role == "eccos" else 1.4},
            visible=True if result.role == "eccos" or name == "prior" else "legendonly",
            hovertemplate="asked %{x:.1%}, realised %{y:.1%}",
        )
    _apply_style(figure, 480)
    figure.update_xaxes(title="floor that was asked for", tickformat=".0%")
    figure.update_yaxes(title="accuracy that was realised", tickformat=".0%")
    return figure


def reliability_figure(report: EvaluationReport) -> Any:
    """Draw the share of good answers over the forecast probability, one line per router."""
    with needs_extra("report", "an HTML report"):
        import plotly.graph_objects as go

    figure = go.Figure()
    palette = assign_colours(report.results)
    figure.add_scatter(
        x=[0, 1],
        y=[0, 1],
        mode="lines",
        name="perfect forecasts",
        line={"color": REFERENCE, "dash": "dash"},
        hoverinfo="skip",
    )
    for result in report.results.values():
        if result.calibration is None:
            continue
        binned = result.calibration.reliability
        figure.add_scatter(
            x=binned.forecast,
            y=binned.outcome,
            mode="lines+markers",
            name=html_text(result.name),
            line={"color": palette[result.name], "width": 2.4 if result.role == "eccos" else 1.4},
            marker={"size": 4 + 16 * np.sqrt(binned.count / binned.count.max())},
            customdata=binned.count,
            visible=True if result.role == "eccos" or result.name == "prior" else "legendonly",
            hovertemplate="forecast %{x:.3f}, good answers %{y:.3f} (%{customdata:,} forecasts)",
        )
    _apply_style(figure, 480)
    figure.update_xaxes(title="forecast probability of a good answer", range=[-0.02, 1.02], dtick=0.2)
    figure.update_yaxes(title="share of good answers", range=[-0.02, 1.02], dtick=0.2)
    return figure


def latency_figure(report: EvaluationReport) -> Any:
    """Draw the milliseconds of one request per router: encoding and deciding."""
    with needs_extra("report", "an HTML report"):
        import plotly.graph_objects as go

    palette = assign_colours(report.results)
    rows = [(result.name, result.latency, result.reads) for result in report.results.values() if result.latency]
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
    _apply_style(figure, 140 + 32 * len(names))
    figure.update_layout(barmode="stack")
    figure.update_xaxes(title="milliseconds for one request, encoding (grey) and deciding (colour)")
    figure.update_yaxes(autorange="reversed", gridcolor="white")
    return figure


def _apply_style(figure: Any, height: int) -> None:
    """Give a figure the look of the page: white, a faint grid, and the legend beside the plot."""
    figure.update_layout(
        height=height,
        template="none",
        paper_bgcolor="white",
        plot_bgcolor="white",
        font={"family": FONT, "size": 13, "color": INK},
        legend={"x": 1.02, "xanchor": "left", "y": 1, "yanchor": "top"},
        margin={"l": 90, "r": 24, "t": 40, "b": 60},
        hoverlabel={"font": {"size": 13}},
    )
    figure.update_xaxes(gridcolor=FAINT, zeroline=False, linecolor=INK, automargin=True)
    figure.update_yaxes(gridcolor=FAINT, zeroline=False, linecolor=INK, automargin=True)


def _name_points(figure: Any, singles: Sequence[RouterResult], logarithmic: bool) -> None:
    """Write the single models' names where they cover neither each other nor a dot, in the view that opens first."""
    costs = np.array([max(1000 * float(result.score.frontier.cost_usd[0]), 1e-9) for result in singles])
    across = np.log10(costs) if logarithmic else costs
    up = np.array([result.score.best_accuracy for result in singles])
    low, high = figure.layout.yaxis.range
    left, right = figure.layout.xaxis.range or (across.min(), across.max() + 1e-9)
    width, height = PLOT_PIXELS
    dots = np.column_stack([(across - left) / (right - left) * width, (up - low) / (high - low) * height])
    sizes = np.array([[CHARACTER_PIXELS * len(result.name) + 4, LINE_PIXELS] for result in singles])
    centres = place_boxes(dots, np.full(len(dots), DOT_PIXELS), sizes, (0.0, 0.0, width, height))
    for result, x, y, dot, centre in zip(singles, across, up, dots, centres, strict=True):
        figure.add_annotation(
            x=float(x),
            y=float(y),
            text=html_text(result.name),
            ax=float(centre[0] - dot[0]),
            ay=float(dot[1] - centre[1]),
            font={"size": 11, "color": INK},
            arrowwidth=0.7,
            arrowhead=0,
            standoff=5,
            arrowcolor=REFERENCE,
        )


def _curve(frontier: Frontier) -> tuple[list[float], list[float]]:
    """Return (USD per 1,000 questions, accuracy) of a frontier with many points."""
    costs, accuracies = densify(frontier.cost_usd, frontier.accuracy, _POINTS_PER_LINE)
    return (1000 * costs).round(9).tolist(), accuracies.round(6).tolist()
