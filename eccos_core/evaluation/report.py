"""The report of an evaluation: its values, its JSON for other programs, and its tables."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from eccos_core.evaluation.calibration import CalibrationReport, LengthError
from eccos_core.evaluation.metrics import ACCURACY_TARGETS, RoutingScore
from eccos_core.io.files import atomic_writer

RouterRole = Literal["reference", "eccos", "baseline", "single"]


@dataclass(frozen=True, slots=True)
class Latency:
    """Times of one router, measured in this process, without the encoder (see `EncoderFacts`).

    fit_s: fitting once. batch_ms: per request, with all test questions in one batch. single_ms: median for one request
    on its own.
    """

    fit_s: float
    batch_ms: float
    single_ms: float


@dataclass(frozen=True, slots=True)
class EncoderFacts:
    """An encoder of the evaluation. encode_ms: median for one question on its own, without a cache."""

    name: str
    dimensions: int
    encode_ms: float


@dataclass(frozen=True, slots=True, eq=False)
class RouterResult:
    """One router's score. A router that makes forecasts also has calibration and length error.

    from_cache: the answers and the latency come from an earlier run with the same data, settings and code.
    """

    name: str
    role: RouterRole
    score: RoutingScore
    reads: str = "none"
    calibration: CalibrationReport | None = None
    length: LengthError | None = None
    latency: Latency | None = None
    from_cache: bool = False


@dataclass(frozen=True, slots=True)
class BestSingle:
    """The most accurate single model on the test rows. Every cost share is a share of its cost."""

    model: str
    accuracy: float
    usd_per_question: float


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationReport:
    """The result of an evaluation. train, test: numbers of rows. results: by name, in the order of the tables."""

    dataset: str
    train: int
    test: int
    models: tuple[str, ...]
    best_single: BestSingle
    results: Mapping[str, RouterResult]
    encoders: Mapping[str, EncoderFacts] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object that docs/benchmarks/index.md documents. null means that a target is out of reach."""
        return {
            "dataset": self.dataset,
            "train": self.train,
            "test": self.test,
            "models": list(self.models),
            "best_single": {
                "model": self.best_single.model,
                "accuracy": self.best_single.accuracy,
                "usd_per_1k": 1000 * self.best_single.usd_per_question,
            },
            "routers": {name: _router_as_json(result) for name, result in self.results.items()},
            "encoders": {
                role: {"name": facts.name, "dimensions": facts.dimensions, "encode_ms": facts.encode_ms}
                for role, facts in self.encoders.items()
            },
            "notes": list(self.notes),
        }

    def write_json(self, path: str | Path) -> None:
        """Write the JSON object to a file, whole or not at all."""
        with atomic_writer(Path(path)) as stream:
            stream.write(json.dumps(self.as_json(), indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n")

    def write_markdown(self, path: str | Path) -> None:
        """Write the tables to a file as Markdown."""
        with atomic_writer(Path(path)) as stream:
            stream.write(self.as_markdown().encode())

    def as_markdown(self) -> str:
        """Return Markdown tables of the frontier, calibration and length error, and latency."""
        best = self.best_single
        parts = [
            f"# {self.dataset or 'Evaluation'}",
            f"{self.train:,} training and {self.test:,} test questions, {len(self.models)} models. Best single model: "
            f"{best.model}, accuracy {best.accuracy:.3f}, {1000 * best.usd_per_question:.4g} USD per 1,000 questions.",
            "Cost share: what a router pays for 90, 95, 98 and 100 % of that accuracy, as a share of that cost. "
            "Area: mean accuracy over all budgets up to that cost.",
            markdown_table(FRONTIER_HEADER, [frontier_row(result) for result in self.results.values()]),
        ]
        forecasters = [result for result in self.results.values() if result.calibration is not None]
        if forecasters:
            parts += ["## Forecasts", markdown_table(FORECAST_HEADER, [forecast_row(result) for result in forecasters])]
        timed = [result for result in self.results.values() if result.latency is not None]
        if timed:
            parts += ["## Latency", markdown_table(LATENCY_HEADER, [latency_row(result) for result in timed])]
            parts += [
                f"Encoder `{role}` ({facts.name}, {facts.dimensions} dimensions): {facts.encode_ms:.2f} ms a question."
                for role, facts in self.encoders.items()
            ]
        parts += [f"Note: {note}" for note in self.notes]
        return "\n\n".join(parts) + "\n"


FRONTIER_HEADER = ("router", *(f"{target:.2f}" for target in ACCURACY_TARGETS), "area", "best accuracy")
FORECAST_HEADER = ("router", "Brier", "ECE", "tokens off (mean)", "off (median)", "bias", "above the 0.9 quantile")
LATENCY_HEADER = ("router", "fit, s", "one request, ms", "in a batch, ms")


def frontier_row(result: RouterResult) -> tuple[str, ...]:
    """Return the cells name, cost share at each target (– where out of reach), area, best accuracy."""
    shares = [result.score.cost_share[target] for target in ACCURACY_TARGETS]
    shown = ["–" if share is None else f"{share:.3f}" for share in shares]
    return (result.name, *shown, f"{result.score.area:.4f}", f"{result.score.best_accuracy:.4f}")


def forecast_row(result: RouterResult) -> tuple[str, ...]:
    """Return the cells name, calibration and length error, with – where there is none."""
    calibration, length = result.calibration, result.length
    head = ("–", "–") if calibration is None else (f"{calibration.brier:.4f}", f"{calibration.ece:.4f}")
    if length is None:
        return (result.name, *head, "–", "–", "–", "–")
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
        return (result.name, "–", "–", "–")
    return (result.name, f"{latency.fit_s:.1f}", f"{latency.single_ms:.2f}", f"{latency.batch_ms:.4f}")


def markdown_table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a Markdown table with the first column to the left and numbers to the right."""
    lines = [header, ("---", *("---:" for _ in header[1:])), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _router_as_json(result: RouterResult) -> dict[str, Any]:
    score = result.score
    entry: dict[str, Any] = {
        "role": result.role,
        "area": score.area,
        "best_accuracy": score.best_accuracy,
        "cost_share": {f"{target:.2f}": score.cost_share[target] for target in ACCURACY_TARGETS},
        "frontier": [
            [1000 * cost, accuracy]
            for cost, accuracy in zip(score.frontier.cost_usd.tolist(), score.frontier.accuracy.tolist(), strict=True)
        ],
    }
    if result.reads != "none":
        entry["reads"] = result.reads
    if result.calibration is not None:
        entry["calibration"] = _calibration_as_json(result.calibration)
    if result.length is not None:
        entry["length_error"] = {name: getattr(result.length, name) for name in LengthError.__slots__}
    if result.latency is not None:
        entry["latency"] = {name: getattr(result.latency, name) for name in Latency.__slots__}
        entry["from_cache"] = result.from_cache
    return entry


def _calibration_as_json(calibration: CalibrationReport) -> dict[str, Any]:
    binned = calibration.reliability
    return {
        "brier": calibration.brier,
        "ece": calibration.ece,
        "brier_per_model": _null_for_nan(calibration.brier_per_model.tolist()),
        "ece_per_model": _null_for_nan(calibration.ece_per_model.tolist()),
        "reliability": {
            "forecast": binned.forecast.tolist(),
            "outcome": binned.outcome.tolist(),
            "count": [int(count) for count in binned.count],
        },
    }


def _null_for_nan(values: list[float]) -> list[float | None]:
    """Replace NaN, which JSON does not have, by None."""
    return [None if math.isnan(value) else value for value in values]
