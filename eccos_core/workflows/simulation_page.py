"""Write a simulation as one HTML page: tables, and plots as SVG. It opens offline, in light and dark, on a phone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from eccos_core.errors import InputError
from eccos_core.evaluation.charts import prefers_log_axis
from eccos_core.evaluation.figures import LINE_COLOURS, inline_svg, new_figure, style_frame
from eccos_core.evaluation.html_page import html_table, render_page
from eccos_core.evaluation.palette import INK, REFERENCE
from eccos_core.io.files import atomic_writer
from eccos_core.io.optional import needs_extra
from eccos_core.io.safe_text import html_text, printable
from eccos_core.simulation.study import SeedMean, SimulationReport
from eccos_core.workflows.simulation_tables import along_table, first_order, seed_cell, simulation_tables, summary

_INCHES = (4.7, 3.5)  # 338 units wide, so that 10 units of text stay readable at 360 pixels
_MARKERS = "osD^vPX*"
_STYLE = """:root { color-scheme: light dark; --reference: #707a86;
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
"""


def write_page(report: SimulationReport, path: Path) -> None:
    """Write the page, whole or not at all. Raises `InputError` for a suffix that is no HTML."""
    check_page(path)
    with atomic_writer(path) as stream:
        stream.write(render_simulation(report).encode())


def check_page(path: Path) -> None:
    """Raise `InputError` for a file name that is no HTML page's."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--report is {str(path)!r}, but the report is an HTML page. Give a name that ends in .html.")


def render_simulation(report: SimulationReport) -> str:
    """Render the whole page."""
    body = [
        f"<main>\n<h1>Simulation of {html_text(report.dataset or 'a stream')}</h1>",
        *(f"<p class=lead>{html_text(line)}</p>" for line in summary(report)),
        '<div class="plots">',
        _quality_plot(report),
        _latency_plot(report),
        _along_plot(report),
        *([_order_plot(report)] if len(report.plan.orders) > 1 else []),
        "</div>",
    ]
    for table in simulation_tables(report):
        body += [f"<h2>{html_text(table.title)}</h2>", f"<p>{html_text(table.explanation)}</p>", html_table(table)]
    along = along_table(report)
    body += [
        f"<details><summary>{html_text(along.title)}</summary><p>{html_text(along.explanation)}</p>",
        html_table(along),
        "</details>\n</main>",
    ]
    return render_page(f"Simulation of {report.dataset or 'a stream'}", "\n".join(body), _STYLE)


# ------------------------------------------------------------------------------------------------------------ plots


def _quality_plot(report: SimulationReport) -> str:
    """Draw quality over cost, one point per router with its interval."""
    figure, axes = _axes()
    found = [each for each in first_order(report) if each.measures["quality"].value is not None]
    for position, each in enumerate(found):
        cost, quality = each.measures["usd_per_1000"], each.measures["quality"]
        axes.errorbar(
            [cost.value],
            [quality.value],
            xerr=_half(cost),
            yerr=_half(quality),
            fmt=_MARKERS[position % len(_MARKERS)],
            color=_colour(position),
            capsize=3,
            label=_name(each.router),
            zorder=9 - position,
        )
    if report.floor is not None:
        axes.axhline(report.floor, color=INK, linestyle="--", linewidth=1, label="floor asked")
    axes.axhline(report.attainable, color=REFERENCE, linestyle=":", linewidth=1.2, label="attainable (forecast)")
    costs = [usd for each in found if (usd := each.measures["usd_per_1000"].value) is not None]
    if costs and prefers_log_axis(costs):
        _use_log_axis(axes)
    else:
        axes.set_xlim(left=0)
    axes.set_xlabel("USD per 1,000 answers")
    axes.set_ylabel("realised quality")
    told = "; ".join(
        f"{each.router}: quality {seed_cell(each.measures['quality'], '.3f')} for "
        f"{seed_cell(each.measures['usd_per_1000'], '.3g')} USD"
        for each in found
    )
    return _finish(figure, axes, "quality", "Quality over cost", told)


def _latency_plot(report: SimulationReport) -> str:
    """Draw median, p95 and p99 of the latency, one row per router."""
    figure, axes = _axes()
    found = first_order(report)
    names = (("latency_p50_s", "median"), ("latency_p95_s", "p95"), ("latency_p99_s", "p99"))
    for position, (name, label) in enumerate(names):
        axes.plot(
            [_known(each.measures[name]) for each in found],
            range(len(found)),
            linestyle="none",
            marker=_MARKERS[position],
            color=_colour(position),
            label=label,
        )
    axes.set_yticks(range(len(found)), [_name(each.router) for each in found])
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.set_xlabel("seconds from arrival to answer")
    told = "; ".join(
        f"{each.router}: " + ", ".join(f"{label} {seed_cell(each.measures[name], '.2f')} s" for name, label in names)
        for each in found
    )
    return _finish(figure, axes, "latency", "Latency", told)


def _along_plot(report: SimulationReport) -> str:
    """Draw the forecast quality along the stream, one line per router. The warm-up is marked."""
    figure, axes = _axes()
    found = first_order(report)
    for position, each in enumerate(found):
        places = (np.arange(len(each.along)) + 0.5) / len(each.along) * report.requests
        axes.plot(places, each.along, color=_colour(position), linestyle=_dash(position), label=_name(each.router))
    if report.floor is not None:
        axes.axhline(report.floor, color=INK, linestyle="--", linewidth=1, label="floor asked")
    if report.warm_up:
        axes.axvspan(0, report.warm_up, color=REFERENCE, alpha=0.18, linewidth=0, label="warm-up")
    axes.set_xlabel("requests")
    axes.set_ylabel("forecast quality")
    told = "; ".join(
        f"{each.router}: from {np.nanmin(each.along):.3f} to {np.nanmax(each.along):.3f}"
        for each in found
        if np.isfinite(each.along).any()
    )
    return _finish(figure, axes, "along", "Forecast quality along the stream", told)


def _order_plot(report: SimulationReport) -> str:
    """Draw the cost of each router in each order."""
    figure, axes = _axes()
    routers = first_order(report)
    by_name = {(each.router, each.order): each.measures["usd_per_1000"] for each in report.routers}
    orders = report.plan.orders
    for position, each in enumerate(routers):
        costs = [by_name[each.router, order] for order in orders]
        places = np.arange(len(orders)) + (position - (len(routers) - 1) / 2) * 0.08
        axes.errorbar(
            places,
            [_known(cost) for cost in costs],
            yerr=np.concatenate([_half(cost) for cost in costs], axis=1),
            fmt=_MARKERS[position % len(_MARKERS)],
            color=_colour(position),
            capsize=3,
            label=_name(each.router),
        )
    axes.set_xticks(range(len(orders)), orders)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("USD per 1,000 answers")
    told = "; ".join(
        f"{each.router}: " + ", ".join(f"{order} {seed_cell(by_name[each.router, order], '.3g')}" for order in orders)
        for each in routers
    )
    return _finish(figure, axes, "orders", "Cost per order", told)


def _axes() -> tuple[Any, Any]:
    figure = new_figure(*_INCHES, dpi=72)
    axes = figure.subplots()
    axes.tick_params(colors=INK, labelsize=10)
    for spine in axes.spines.values():
        spine.set_color(REFERENCE)
    return figure, axes


def _use_log_axis(axes: Any) -> None:
    with needs_extra("report", "a page with plots"):
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _finish(figure: Any, axes: Any, key: str, title: str, told: str) -> str:
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


def _colour(position: int) -> str:
    return LINE_COLOURS[position % len(LINE_COLOURS)]


def _dash(position: int) -> str:
    return ("-", "--", ":", "-.")[position // len(LINE_COLOURS) % 4]


def _name(name: str) -> str:
    short = printable(name)
    return short if len(short) <= 24 else short[:23] + "…"


def _known(measure: SeedMean) -> float:
    return math.nan if measure.value is None else measure.value


def _half(measure: SeedMean) -> list[list[float]]:
    half = 0.0 if measure.value is None or measure.high is None else measure.high - measure.value
    return [[half], [half]]
