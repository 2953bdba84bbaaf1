"""The tables of an evaluation report, for the terminal, Markdown and HTML alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eccos_core.evaluation.bootstrap import COST_SHARES, MetricDifference
from eccos_core.evaluation.metrics import ACCURACY_TARGETS
from eccos_core.evaluation.report import EvaluationReport, RouterResult
from eccos_core.io.files import atomic_writer

MISSING = "–"


@dataclass(frozen=True, slots=True)
class ReportTable:
    """A table whose first column holds names. roles: of the rows' routers, for their style."""

    title: str
    explanation: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    roles: list[str]


def report_tables(report: EvaluationReport) -> list[ReportTable]:
    """Return the tables that have rows, in the order in which they are shown."""
    results = list(report.results.values())
    tables = [
        _table(
            "Cost to reach an accuracy",
            "The columns 0.90 to 1.00 show what a router pays for 90, 95, 98 and 100 % of the best single model's "
            "accuracy, as a share of its cost. Less is better. Area is the mean accuracy over all budgets up to that "
            "cost. Budgets below the router's cheapest setting count 0. More is better.",
            ("router", *(f"{target:.2f}" for target in ACCURACY_TARGETS), "area", "best accuracy"),
            results,
            frontier_row,
        ),
        _table(
            "Calls per question",
            "Mean number of calls of plans, at the cheapest setting that reaches 90, 95, 98 and 100 % of the best "
            "single model's accuracy.",
            ("router", *(f"{target:.2f}" for target in ACCURACY_TARGETS)),
            [result for result in results if result.calls is not None],
            calls_row,
        ),
        _table(
            "Kept promises",
            "You ask for a mean accuracy, from the cheapest model's to the best one's. The table compares it with the "
            "accuracy that was realised.",
            ("router", "floors", "within 1 point", "mean difference", "worst"),
            [result for result in results if result.promises is not None and len(result.promises.asked)],
            promise_row,
        ),
        _table(
            "Metrics of the literature",
            "AIQ: mean accuracy up to the dearest model's cost (RouterBench). Arena: accuracy and cheapness of the "
            "best setting, in one number (RouterArena). APGR, CPT50, CPT80: how much of the gap between two models is "
            "recovered, and the share of strong calls that recovers 50 and 80 % (RouteLLM). Task mean: every task "
            "counts the same, at the most accurate setting.",
            ("router", "AIQ", "arena", "APGR", "CPT50", "CPT80", "task mean"),
            results,
            paper_row,
        ),
        _table(
            "Forecasts",
            "Brier score and expected calibration error (ECE) of the forecast accuracy, and the error of the forecast "
            "output tokens.",
            ("router", "Brier", "ECE", "tokens off (mean)", "off (median)", "bias", "above the 0.9 quantile"),
            [result for result in results if result.calibration is not None],
            forecast_row,
        ),
        _table(
            "Latency without encoding",
            " ".join(
                f"Encoder '{role}' ({facts.name}, {facts.dimensions} dimensions): {facts.encode_ms:.2f} ms a question."
                for role, facts in report.encoders.items()
            )
            + _plan_latency(results),
            ("router", "fit, s", "one request, ms", "in a batch, ms"),
            [result for result in results if result.latency is not None],
            latency_row,
        ),
    ]
    tables[3:3] = _difference_tables(report)
    return [table for table in tables if table.rows]


def summary(report: EvaluationReport) -> str:
    """Return the sizes of the data and the best single model, in one line."""
    best = report.best_single
    return (
        f"{report.train:,} training and {report.test:,} test questions, {len(report.models)} models. Best single "
        f"model: {best.model}, accuracy {best.accuracy:.3f}, {1000 * best.usd_per_question:.4g} USD per 1,000 "
        "questions."
    )


def render_markdown(report: EvaluationReport) -> str:
    """Return the report as Markdown."""
    parts = [f"# {report.dataset or 'Evaluation'}", summary(report)]
    for table in report_tables(report):
        parts += [f"## {table.title}", table.explanation, markdown_table(table.header, table.rows)]
    parts += [f"Note: {note}" for note in report.notes]
    return "\n\n".join(part for part in parts if part) + "\n"


def write_markdown(report: EvaluationReport, path: Path) -> None:
    """Write the report to a file as Markdown, whole or not at all."""
    with atomic_writer(path) as stream:
        stream.write(render_markdown(report).encode())


def markdown_table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Return a Markdown table with the first column to the left and numbers to the right."""
    lines = [header, ("---", *("---:" for _ in header[1:])), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _plan_latency(results: Sequence[RouterResult]) -> str:
    """Say what the time of a router that looks at answers is for."""
    names = [result.name for result in results if result.calls is not None]
    return f" The times of {', '.join(names)} are for all settings, not for one." if names else ""


def calls_row(result: RouterResult) -> tuple[str, ...]:
    """Return the cells name and mean calls at each target."""
    calls = result.calls or {}
    return (result.name, *(_number(calls.get(target), ".2f") for target in ACCURACY_TARGETS))


def frontier_row(result: RouterResult) -> tuple[str, ...]:
    """Return the cells name, cost share at each target, area, best accuracy."""
    score = result.score
    shares = [_number(score.cost_share[target], ".3f") for target in ACCURACY_TARGETS]
    return (result.name, *shares, _number(score.area, ".4f"), f"{score.best_accuracy:.4f}")


def paper_row(result: RouterResult) -> tuple[str, ...]:
    """Return the cells name, AIQ, arena, APGR, CPT50, CPT80, task mean."""
    paper, gap = result.paper, result.paper.gap
    gap_cells = (MISSING,) * 3 if gap is None else (f"{gap.apgr:.3f}", f"{gap.cpt50:.1%}", f"{gap.cpt80:.1%}")
    return (
        result.name,
        _number(paper.aiq, ".4f"),
        _number(paper.arena, ".4f"),
        *gap_cells,
        _number(paper.task_mean, ".4f"),
    )


def promise_row(result: RouterResult) -> tuple[str, ...]:
    """Return the cells name, number of floors, share within a point, mean and worst difference in points."""
    kept = result.promises
    if kept is None:
        return (result.name, *(MISSING,) * 4)
    return (
        result.name,
        str(len(kept.asked)),
        f"{kept.close_share:.0%}",
        f"{100 * kept.mean_difference:+.2f}",
        f"{100 * kept.worst:+.2f}",
    )


def forecast_row(result: RouterResult) -> tuple[str, ...]:
    """Return the cells name, calibration and length error."""
    calibration, length = result.calibration, result.length
    head = (MISSING,) * 2 if calibration is None else (f"{calibration.brier:.4f}", f"{calibration.ece:.4f}")
    if length is None:
        return (result.name, *head, *(MISSING,) * 4)
    return (
        result.name,
        *head,
        f"{length.mean_absolute:.0f}",
        f"{length.median_relative:.0%}",
        f"{length.bias:+.1%}",
        f"{length.above_high:.1%}",
    )


def latency_row(result: RouterResult) -> tuple[str, ...]:
    """Return the cells name, seconds to fit, milliseconds for one request alone and within a batch."""
    latency = result.latency
    if latency is None:
        return (result.name, *(MISSING,) * 3)
    return (result.name, f"{latency.fit_s:.1f}", f"{latency.single_ms:.2f}", f"{latency.batch_ms:.4f}")


def _table(
    title: str,
    explanation: str,
    header: tuple[str, ...],
    results: Sequence[RouterResult],
    row: Callable[[RouterResult], tuple[str, ...]],
) -> ReportTable:
    return ReportTable(title, explanation, header, [row(each) for each in results], [each.role for each in results])


def _difference_tables(report: EvaluationReport) -> list[ReportTable]:
    """Return the differences of all routers to the one with the largest area, with their intervals."""
    best = report.best_router
    if best is None:
        return []
    area = ReportTable(
        f"Area against {best}",
        f"The area of each router minus that of {best}, with its 95 % interval over draws of the test questions.",
        ("router", "difference", "from", "to", "verdict"),
        [
            (each.router, f"{each.difference:+.4f}", f"{each.low:+.4f}", f"{each.high:+.4f}", each.verdict)
            for each in report.differences_to(best)
        ],
        [report.results[each.router].role for each in report.differences_to(best)],
    )
    shares = _metrics_against(
        report,
        best,
        f"Cost share against {best}",
        f"The cost share of each router minus that of {best}, with its 95 % interval. Below 0, the router is cheaper. "
        "A dash means that one of the two cannot reach the accuracy.",
        dict(zip((f"{target:.2f}" for target in ACCURACY_TARGETS), COST_SHARES, strict=True)),
    )
    gap = _metrics_against(
        report,
        best,
        f"Metrics of the literature against {best}",
        f"The metric of each router minus that of {best}, with its 95 % interval. Less is better for CPT50 and CPT80.",
        {"AIQ": "aiq", "APGR": "apgr", "CPT50": "cpt50", "CPT80": "cpt80"},
    )
    return [area, shares, gap]


def _metrics_against(
    report: EvaluationReport, best: str, title: str, explanation: str, metrics: Mapping[str, str]
) -> ReportTable:
    """Return a table with a column per metric, without the metrics that no router has."""
    columns = {
        header: found
        for header, metric in metrics.items()
        if (found := {each.router: _difference_cell(each) for each in report.differences_to(best, metric)})
    }
    names = [each.router for each in report.differences_to(best)]
    return ReportTable(
        title,
        explanation,
        ("router", *columns),
        [(name, *(column.get(name, MISSING) for column in columns.values())) for name in names] if columns else [],
        [report.results[name].role for name in names] if columns else [],
    )


def _difference_cell(difference: MetricDifference) -> str:
    low, high = (f"{end:+.3f}" if math.isfinite(end) else "out of reach" for end in (difference.low, difference.high))
    head = "no difference" if difference.verdict == "no difference" else f"{difference.difference:+.3f}"
    return f"{head} ({low} to {high})"


def _number(value: float | None, form: str) -> str:
    return MISSING if value is None else format(value, form)
