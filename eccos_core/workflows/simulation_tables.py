"""The tables of a simulation, for the terminal and the page alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from eccos_core.evaluation.report_tables import MISSING, ReportTable
from eccos_core.simulation.pool_engine import EngineLoad
from eccos_core.simulation.study import RouterSummary, SeedMean, SimulationReport
from eccos_core.streaming import FloorTarget

_COLUMNS = (
    ("quality", "quality", ".4f"),
    ("forecast", "forecast_quality", ".4f"),
    ("USD per 1,000", "usd_per_1000", ".4g"),
    ("unanswered", "unanswered", ".2%"),
    ("wait p50, s", "waiting_p50_s", ".2f"),
    ("wait p95, s", "waiting_p95_s", ".2f"),
    ("wait p99, s", "waiting_p99_s", ".2f"),
    ("latency p50, s", "latency_p50_s", ".2f"),
    ("latency p95, s", "latency_p95_s", ".2f"),
    ("latency p99, s", "latency_p99_s", ".2f"),
)
_QUALITY, _TIME = _COLUMNS[:4], _COLUMNS[4:]
_ENGINE_COLUMNS = {
    "answers": ("answered", ",.0f"),
    "GPU s": ("gpu_seconds", ",.1f"),
    "busy": ("utilisation", ".0%"),
    "first token p50, s": ("first_token_median_s", ".2f"),
    "p95, s": ("first_token_p95_s", ".2f"),
    "preempted": ("preemptions", ",.0f"),
    "recomputed tokens": ("recomputed_tokens", ",.0f"),
    "peak tokens": ("peak_kv_tokens", ",.0f"),
}
HINDSIGHT = (("hindsight, on forecasts", "forecast"), ("hindsight, on answers", "answers"))


def summary(report: SimulationReport) -> list[str]:
    """Say what was simulated, what was asked, and what can be attained, in a few lines."""
    seeds = len(report.plan.seeds)
    streams = (
        "1 stream" if seeds == 1 else f"{seeds} streams with seeds {report.plan.seeds[0]} to {report.plan.seeds[-1]}"
    )
    lines = [
        f"{streams} of {report.requests:,} requests, {report.per_second:.3g} a second on average, {report.arrivals}.",
        f"The first {report.warm_up:,} requests ({report.plan.warm_up:.0%}) of each stream warm it up: they are served "
        "and not counted.",
    ]
    in_slots = "not all requests" if report.attainable_in_slots is None else f"{report.attainable_in_slots:.4f}"
    attainable = f"{report.attainable:.4f} with a free choice, {in_slots} within the slots in the long run"
    if isinstance(report.target, FloorTarget):
        asked = f"Floor asked: {report.target.alpha:.4f}. Attainable by forecast: {attainable}."
        if report.target.alpha > report.attainable:
            asked += " The floor cannot be attained. eccos comes as near as it can."
        elif report.attainable_in_slots is not None and report.target.alpha > report.attainable_in_slots:
            asked += " The floor cannot be attained within the slots. Give more slots or a lower rate."
        lines.append(asked)
        if report.forecast_floor is not None and report.forecast_floor > report.target.alpha:
            lines.append(
                f"On training questions the forecasts of the chosen models were too high, so eccos asks for a mean "
                f"forecast of {report.forecast_floor:.4f}."
            )
        lines += [
            _describe_shortfall(each, report.target) for each in report.routers if _falls_short(each, report.target)
        ]
    else:
        lines.append(f"Budget: {report.target.usd:g} USD per {report.target.per}. Attainable quality: {attainable}.")
    return lines


def _falls_short(summary: RouterSummary, target: FloorTarget) -> bool:
    """Say whether eccos realises less than the floor, though its forecast keeps it."""
    quality, forecast = (summary.measures[name].value for name in ("quality", "forecast_quality"))
    least = target.alpha - target.tolerance
    return summary.router == "eccos" and quality is not None and forecast is not None and quality < least <= forecast


def _describe_shortfall(summary: RouterSummary, target: FloorTarget) -> str:
    quality, forecast = summary.measures["quality"].value, summary.measures["forecast_quality"].value
    return (
        f"eccos, order {summary.order}: forecast {forecast:.4f}, realised {quality:.4f}, for a floor of "
        f"{target.alpha:g}. The floor holds for the forecast. On these questions the forecast is too high."
    )


def simulation_tables(report: SimulationReport) -> list[ReportTable]:
    """Return the tables in the order in which they are shown: for each order of the questions, then over orders."""
    tables: list[ReportTable] = []
    several = len(report.plan.orders) > 1
    for order in report.plan.orders:
        found = [each for each in report.routers if each.order == order]
        suffix = f", order {order}" if several else ""
        tables += [
            _measure_table(
                report,
                found,
                f"Quality and cost{suffix}",
                _quality_rule(report),
                _QUALITY,
            ),
            _measure_table(
                report,
                found,
                f"Waiting and latency{suffix}",
                "Waiting ends when a slot is free, latency when the answer is complete. 95 % take p95 at most.",
                _TIME,
            ),
            _whole_table(report, found, f"Whole stream{suffix}"),
        ]
        if found[0].results[0].engines:
            tables.append(_engine_table(found, f"Engines{suffix}"))
    tables.append(_order_table(report))
    return tables


def along_table(report: SimulationReport) -> ReportTable:
    """Return the forecast quality in ten parts of the stream, in the first order with the first seed."""
    found = first_order(report)
    parts = [np.array_split(each.along, 10) for each in found]
    rows = []
    for part in range(10):
        cells = [_mean_cell(each[part]) for each in parts]
        rows.append((f"{10 * part} to {10 * part + 10} %", *cells))
    return ReportTable(
        "Forecast quality along the stream",
        "Each row is a tenth of the stream, warm-up included.",
        ("part", *(each.router for each in found)),
        rows,
        ["" for _ in rows],
    )


def first_order(report: SimulationReport) -> list[RouterSummary]:
    """Return the routers in the first order of the questions."""
    return [each for each in report.routers if each.order == report.plan.orders[0]]


def _quality_rule(report: SimulationReport) -> str:
    said = "Quality is the recorded quality of the answers, and forecast is what the routers see. "
    if isinstance(report.target, FloorTarget):
        said += (
            "A floor is promised on the forecast. It is kept where the mean of a whole stream reaches it, less "
            f"{report.target.tolerance:g}. "
        )
    return said + _interval_rule(report)


def _interval_rule(report: SimulationReport) -> str:
    if len(report.plan.seeds) == 1:
        return "One stream has no interval. Ask for more with --seeds."
    return f"± is the 95 % interval of the mean over {len(report.plan.seeds)} seeds (Student's t)."


def _measure_table(
    report: SimulationReport,
    found: list[RouterSummary],
    title: str,
    explanation: str,
    columns: tuple[tuple[str, str, str], ...],
) -> ReportTable:
    floor = isinstance(report.target, FloorTarget) and columns is _QUALITY
    header = ("router", *(name for name, _, _ in columns), *(("floor kept",) if floor else ()))
    rows = [
        (
            each.router,
            *(seed_cell(each.measures[name], form) for _, name, form in columns),
            *((_kept_cell(report, each),) if floor else ()),
        )
        for each in found
    ]
    return ReportTable(title, explanation, header, rows, _roles(found))


def _kept_cell(report: SimulationReport, summary: RouterSummary) -> str:
    """Say in how many whole streams the mean forecast reaches the floor, less the tolerance of its promise."""
    target, found = report.target, summary.results
    if not isinstance(target, FloorTarget):
        return MISSING
    kept = sum(each.answered > 0 and each.forecast_quality >= target.alpha - target.tolerance for each in found)
    if kept in (0, len(found)):
        return "yes" if kept else "no"
    return f"in {kept} of {len(found)}"


def _whole_table(report: SimulationReport, found: list[RouterSummary], title: str) -> ReportTable:
    rows: list[tuple[str, ...]] = []
    for each in found:
        missed, refused, usd = (
            SeedMean.of([float(getattr(result, name)) for result in each.results]).value
            for name in ("missed", "refused", "cost_usd")
        )
        busy = np.mean([result.utilisation for result in each.results], axis=0)
        busiest = int(busy.argmax())
        rows.append(
            (
                each.router,
                f"{missed:.5g}",
                f"{refused:.5g}",
                f"{usd:.4g}",
                f"{report.models[busiest]} {busy[busiest]:.0%}",
            )
        )
    return ReportTable(
        title,
        "Warm-up included, the mean over seeds. Missed requests waited longer than the deadline. Refused ones found "
        "the queue full. Busiest is the model with the greatest share of its slots in use.",
        ("router", "missed", "refused", "USD", "busiest"),
        rows,
        _roles(found),
    )


def _engine_table(found: list[RouterSummary], title: str) -> ReportTable:
    """Return what each engine did under each router."""
    rows, roles = [], []
    for each, role in zip(found, _roles(found), strict=True):
        for loads in zip(*(result.engines for result in each.results), strict=True):
            cells = [_load_cell(loads, name, form) for name, form in _ENGINE_COLUMNS.values()]
            rows.append((f"{each.router}: {loads[0].model}", loads[0].scheduler, str(loads[0].replicas), *cells))
            roles.append(role)
    return ReportTable(
        title,
        "Each local model has an engine of its own, simulated pass by pass. Warm-up included, the mean over seeds. "
        "GPU s is the time in passes, over all replicas. First tokens count from the arrival.",
        ("router: model", "scheduler", "replicas", *_ENGINE_COLUMNS),
        rows,
        roles,
    )


def _load_cell(loads: Sequence[EngineLoad], name: str, form: str) -> str:
    known = [value for load in loads if (value := getattr(load, name)) is not None]
    return format(float(np.mean(known)), form) if known else MISSING


def _order_table(report: SimulationReport) -> ReportTable:
    """Return the cost of whole streams in each order, beside what hindsight would have paid."""
    names = tuple(dict.fromkeys(each.router for each in report.routers))
    paid = {(each.router, each.order): stream_cost(each) for each in report.routers}
    rows = [(name, *(seed_cell(paid[name, order], ".4g") for order in report.plan.orders)) for name in names]
    roles = ["eccos" if name == "eccos" else "baseline" for name in names]
    said = "USD per 1,000 answers of whole streams, warm-up included, with the questions in this order. "
    if report.hindsight:
        for label, kind in HINDSIGHT:
            cells = [seed_cell(getattr(report.hindsight[order], kind), ".4g") for order in report.plan.orders]
            rows.append((label, *cells))
            roles.append("single")
        said += (
            "Hindsight is the cheapest choice that keeps the floor, had the whole stream been known, with slots for "
            "all. It keeps the floor on the forecasts, as the routers promise, or on the recorded answers, which no "
            "router sees. A router below hindsight did not keep the floor, or did not answer all."
        )
    elif report.floor is not None:
        said += "A stream of so many requests is not looked back on."
    return ReportTable("Cost per order", said, ("router", *report.plan.orders), rows, roles)


def stream_cost(summary: RouterSummary) -> SeedMean:
    """Return the USD per 1,000 answers of whole streams."""
    return SeedMean.of([1000 * one.cost_usd / one.answered if one.answered else math.nan for one in summary.results])


def _roles(found: list[RouterSummary]) -> list[str]:
    return ["eccos" if each.router == "eccos" else "baseline" for each in found]


def seed_cell(measure: SeedMean, form: str) -> str:
    """Write a mean with half of its interval."""
    if measure.value is None:
        return MISSING
    if measure.high is None:
        return format(measure.value, form)
    half = ".2g" if form.endswith("g") else form
    return f"{measure.value:{form}} ± {measure.high - measure.value:{half}}"


def _mean_cell(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> str:
    known = values[np.isfinite(values)]
    return f"{known.mean():.4f}" if len(known) else MISSING
