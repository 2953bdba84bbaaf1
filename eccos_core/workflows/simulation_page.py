"""Write a simulation as one HTML page: tables, and plots as SVG. It opens offline, in light and dark, on a phone."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from eccos_core.evaluation.charts import prefers_log_axis
from eccos_core.evaluation.html_page import html_table, render_page
from eccos_core.evaluation.palette import INK, REFERENCE
from eccos_core.io.files import atomic_writer
from eccos_core.io.safe_text import html_text
from eccos_core.simulation.study import SeedMean, SimulationReport
from eccos_core.workflows.page_figures import (
    MARKERS,
    PAGE_STYLE,
    check_page,
    colour,
    dash,
    draw_rows,
    finish_figure,
    new_axes,
    short_name,
    use_log_axis,
)
from eccos_core.workflows.simulation_tables import (
    HINDSIGHT,
    along_table,
    first_order,
    seed_cell,
    simulation_tables,
    stream_cost,
    summary,
)


def write_page(report: SimulationReport, path: Path) -> None:
    """Write the page, whole or not at all. Raises `InputError` for a suffix that is no HTML."""
    check_page(path)
    with atomic_writer(path) as stream:
        stream.write(render_simulation(report).encode())


def render_simulation(report: SimulationReport) -> str:
    """Render the whole page."""
    body = [
        f"<main>\n<h1>Simulation of {html_text(report.dataset or 'a stream')}</h1>",
        *(f"<p class=lead>{html_text(line)}</p>" for line in summary(report)),
        '<div class="plots">',
        _quality_plot(report),
        _latency_plot(report),
        _along_plot(report),
        _order_plot(report),
        *([_engine_plot(report)] if report.routers[0].results[0].engines else []),
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
    return render_page(f"Simulation of {report.dataset or 'a stream'}", "\n".join(body), PAGE_STYLE)


# ------------------------------------------------------------------------------------------------------------ plots


def _quality_plot(report: SimulationReport) -> str:
    """Draw quality over cost, one point per router with its interval."""
    figure, axes = new_axes()
    found = [each for each in first_order(report) if each.measures["quality"].value is not None]
    for position, each in enumerate(found):
        cost, quality = each.measures["usd_per_1000"], each.measures["quality"]
        axes.errorbar(
            [cost.value],
            [quality.value],
            xerr=_half(cost),
            yerr=_half(quality),
            fmt=MARKERS[position % len(MARKERS)],
            color=colour(position),
            capsize=3,
            label=short_name(each.router),
            zorder=9 - position,
        )
    if report.floor is not None:
        axes.axhline(report.floor, color=INK, linestyle="--", linewidth=1, label="floor asked")
    axes.axhline(report.attainable, color=REFERENCE, linestyle=":", linewidth=1.2, label="attainable (forecast)")
    costs = [usd for each in found if (usd := each.measures["usd_per_1000"].value) is not None]
    if costs and prefers_log_axis(costs):
        use_log_axis(axes)
    else:
        axes.set_xlim(left=0)
    axes.set_xlabel("USD per 1,000 answers")
    axes.set_ylabel("realised quality")
    told = "; ".join(
        f"{each.router}: quality {seed_cell(each.measures['quality'], '.3f')} for "
        f"{seed_cell(each.measures['usd_per_1000'], '.3g')} USD"
        for each in found
    )
    return finish_figure(figure, axes, "quality", "Quality over cost", told)


def _latency_plot(report: SimulationReport) -> str:
    """Draw median, p95 and p99 of the latency, one row per router."""
    figure, axes = new_axes()
    found = first_order(report)
    names = (("latency_p50_s", "median"), ("latency_p95_s", "p95"), ("latency_p99_s", "p99"))
    columns = [(label, [_known(each.measures[name]) for each in found]) for name, label in names]
    draw_rows(axes, [each.router for each in found], columns)
    axes.set_xlabel("seconds from arrival to answer")
    told = "; ".join(
        f"{each.router}: " + ", ".join(f"{label} {seed_cell(each.measures[name], '.2f')} s" for name, label in names)
        for each in found
    )
    return finish_figure(figure, axes, "latency", "Latency", told)


def _along_plot(report: SimulationReport) -> str:
    """Draw the forecast quality along the stream, one line per router. The warm-up is marked."""
    figure, axes = new_axes()
    found = first_order(report)
    for position, each in enumerate(found):
        places = (np.arange(len(each.along)) + 0.5) / len(each.along) * report.requests
        axes.plot(places, each.along, color=colour(position), linestyle=dash(position), label=short_name(each.router))
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
    return finish_figure(figure, axes, "along", "Forecast quality along the stream", told)


def _order_plot(report: SimulationReport) -> str:
    """Draw the cost of each router in each order, and what hindsight would have paid."""
    figure, axes = new_axes()
    orders = report.plan.orders
    paid = {(each.router, each.order): stream_cost(each) for each in report.routers}
    lines = [(each.router, [paid[each.router, order] for order in orders]) for each in first_order(report)]
    if report.hindsight:
        lines += [(label, [getattr(report.hindsight[order], kind) for order in orders]) for label, kind in HINDSIGHT]
    for position, (name, costs) in enumerate(lines):
        places = np.arange(len(orders)) + (position - (len(lines) - 1) / 2) * 0.08
        axes.errorbar(
            places,
            [_known(cost) for cost in costs],
            yerr=np.concatenate([_half(cost) for cost in costs], axis=1),
            fmt=MARKERS[position % len(MARKERS)],
            color=colour(position),
            capsize=3,
            label=short_name(name),
        )
    axes.set_xticks(range(len(orders)), orders)
    axes.set_xlim(-0.5, len(orders) - 0.5)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("USD per 1,000 answers")
    told = "; ".join(
        f"{name}: " + ", ".join(f"{order} {seed_cell(cost, '.3g')}" for order, cost in zip(orders, costs, strict=True))
        for name, costs in lines
    )
    return finish_figure(figure, axes, "orders", "Cost per order", told)


def _engine_plot(report: SimulationReport) -> str:
    """Draw how busy each engine is, one row per engine and router."""
    figure, axes = new_axes()
    names, busy = [], []
    for each in first_order(report):
        for loads in zip(*(result.engines for result in each.results), strict=True):
            names.append(f"{each.router}: {loads[0].model}")
            busy.append(100 * float(np.mean([load.utilisation for load in loads])))
    draw_rows(axes, names, [("busy", busy)])
    axes.set_xlim(0, 105)
    axes.set_xlabel("time in passes, % of the stream")
    told = "; ".join(f"{name} {value:.0f} %" for name, value in zip(names, busy, strict=True))
    return finish_figure(figure, axes, "engines", "Engines", told)


def _known(measure: SeedMean) -> float:
    return math.nan if measure.value is None else measure.value


def _half(measure: SeedMean) -> list[list[float]]:
    half = 0.0 if measure.value is None or measure.high is None else measure.high - measure.value
    return [[half], [half]]
