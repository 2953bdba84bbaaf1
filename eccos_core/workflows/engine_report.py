"""What a simulated serving engine did with a trace, as tables for the terminal and the page alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from eccos_core.evaluation.report_tables import ReportTable
from eccos_core.simulation.serving import EngineResult


@dataclass(frozen=True, slots=True)
class EngineReport:
    """One engine with each scheduler asked for. `learnt_from` requests came before those that are simulated."""

    trace: str
    engine: str
    kv_tokens: int
    learnt_from: int
    results: tuple[EngineResult, ...]


_Cells = Mapping[str, Callable[[EngineResult], str]]
_GPU: _Cells = {
    "GPU s": lambda one: f"{one.gpu_seconds:,.1f}",
    "busy": lambda one: f"{one.utilisation:.0%}",
    "preempted": lambda one: f"{one.preemptions:,}",
    "recomputed tokens": lambda one: f"{one.recomputed_tokens:,}",
    "peak tokens": lambda one: f"{one.peak_kv_tokens:,}",
    "tokens/s": lambda one: f"{one.output_tokens_per_s:,.0f}",
}
_TIME: _Cells = {
    "first token p50, s": lambda one: f"{one.first_token_median_s:.2f}",
    "first p95, s": lambda one: f"{one.first_token_p95_s:.2f}",
    "answer p50, s": lambda one: f"{one.answer_median_s:.1f}",
    "answer p95, s": lambda one: f"{one.answer_p95_s:.1f}",
    "ms a token": lambda one: f"{1000 * one.token_median_s:.1f}",
}


def engine_summary(report: EngineReport) -> list[str]:
    """Say what was simulated."""
    first = report.results[0]
    return [
        f"{first.requests:,} requests of {report.trace}: {report.engine}, {report.kv_tokens:,} tokens of cache, "
        f"{first.replicas} replica(s).",
        f"The {report.learnt_from:,} requests before them taught the length forecast and are not simulated.",
    ]


def engine_tables(report: EngineReport) -> list[ReportTable]:
    """Return the tables in the order in which they are shown."""
    oracle = next((one.gpu_seconds for one in report.results if one.scheduler == "oracle"), None)
    of_oracle: _Cells = {} if oracle is None else {"of the oracle": lambda one: f"{one.gpu_seconds / oracle:.4f}"}
    roles = ["eccos" if one.scheduler == "reserve" else "baseline" for one in report.results]
    return [
        ReportTable(
            title,
            explanation,
            ("scheduler", *columns),
            [(one.scheduler, *(cell(one) for cell in columns.values())) for one in report.results],
            roles,
        )
        for title, explanation, columns in (
            (
                "GPU time and cache",
                "GPU s is the time in passes, over all replicas. A preempted request is computed again. The oracle "
                "knows every length, and no engine does.",
                {**of_oracle, **_GPU},
            ),
            ("Waiting", "The first token and the whole answer count from the arrival. 95 % take p95 at most.", _TIME),
        )
    ]
