"""The report as a value, and as the JSON that other programs read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from eccos_core.evaluation.calibration import CalibrationReport, LengthError
from eccos_core.evaluation.metrics import TARGETS, RoutingScore
from eccos_core.io.files import atomic_writer

RouterRole = Literal["reference", "eccos", "baseline", "single"]


@dataclass(frozen=True, slots=True)
class Latency:
    """Measured in this process. fit_s: fitting once. batch_ms: per request when all test questions are forecast at
    once. single_ms: median for one request on its own. None of them includes the encoder (see `EncoderFacts`)."""

    fit_s: float
    batch_ms: float
    single_ms: float


@dataclass(frozen=True, slots=True)
class EncoderFacts:
    """An encoder that took part. encode_ms: median for one question on its own, not from the cache."""

    name: str
    dimensions: int
    encode_ms: float


@dataclass(frozen=True, slots=True, eq=False)
class RouterResult:
    """One router's score, and what else was measured where it makes forecasts. recalled: its answers and latency are
    those of an earlier run with the same data, settings and code."""

    name: str
    role: RouterRole
    score: RoutingScore
    reads: str = "none"
    calibration: CalibrationReport | None = None
    length: LengthError | None = None
    latency: Latency | None = None
    recalled: bool = False


@dataclass(frozen=True, slots=True)
class BestSingle:
    """The most accurate single model on the test rows: every cost share is a share of its cost."""

    model: str
    accuracy: float
    usd_per_question: float


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationReport:
    """What a replay found. train, test: rows. results: by name, in the order they are shown."""

    dataset: str
    train: int
    test: int
    models: tuple[str, ...]
    best_single: BestSingle
    results: Mapping[str, RouterResult]
    encoders: Mapping[str, EncoderFacts] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The documented JSON object (docs/evaluation.md): plain numbers, null where a target is out of reach."""
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
            "routers": {name: _router_json(result) for name, result in self.results.items()},
            "encoders": {
                role: {"name": facts.name, "dimensions": facts.dimensions, "encode_ms": facts.encode_ms}
                for role, facts in self.encoders.items()
            },
            "notes": list(self.notes),
        }

    def write_json(self, path: str | Path) -> None:
        """The JSON object as a file, whole or not at all."""
        with atomic_writer(Path(path)) as stream:
            stream.write(json.dumps(self.as_json(), indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n")

    def write_markdown(self, path: str | Path) -> None:
        """The tables as Markdown."""
        with atomic_writer(Path(path)) as stream:
            stream.write(self.as_markdown().encode())

    def as_markdown(self) -> str:
        """Tables for a README: the frontier in numbers, calibration and length error, latency."""
        best = self.best_single
        parts = [
            f"# {self.dataset or 'Evaluation'}",
            f"{self.train:,} training and {self.test:,} test questions, {len(self.models)} models. Best single model: "
            f"{best.model}, accuracy {best.accuracy:.3f}, {1000 * best.usd_per_question:.4g} USD per 1,000 questions.",
            "Cost share: what a router pays for 90, 95, 98 and 100 % of that accuracy, as a share of that cost. "
            "Area: mean accuracy over all budgets up to that cost.",
            markdown_table(FRONTIER_HEADER, [frontier_row(result) for result in self.results.values()]),
        ]
        trusted = [result for result in self.results.values() if result.calibration is not None]
        if trusted:
            parts += ["## Forecasts", markdown_table(FORECAST_HEADER, [forecast_row(result) for result in trusted])]
        timed = [result for result in self.results.values() if result.latency is not None]
        if timed:
            parts += ["## Latency", markdown_table(LATENCY_HEADER, [latency_row(result) for result in timed])]
            parts += [
                f"Encoder `{role}` ({facts.name}, {facts.dimensions} dimensions): {facts.encode_ms:.2f} ms a question."
                for role, facts in self.encoders.items()
            ]
        parts += [f"Note: {note}" for note in self.notes]
        return "\n\n".join(parts) + "\n"


FRONTIER_HEADER = ("router", *(f"{target:.2f}" for target in TARGETS), "area", "best accuracy")
FORECAST_HEADER = ("router", "Brier", "ECE", "tokens off (mean)", "off (median)", "bias", "above the 0.9 quantile")
LATENCY_HEADER = ("router", "fit, s", "one request, ms", "in a batch, ms")


def frontier_row(result: RouterResult) -> tuple[str, ...]:
    """Name, cost share at each target (– where out of reach), area, best accuracy."""
    shares = [result.score.cost_share[target] for target in TARGETS]
    shown = ["–" if share is None else f"{share:.3f}" for share in shares]
    return (result.name, *shown, f"{result.score.area:.4f}", f"{result.score.best_accuracy:.4f}")


def forecast_row(result: RouterResult) -> tuple[str, ...]:
    """Name, calibration and length error; – where there is none."""
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
    """Name, seconds to fit, milliseconds for one request alone and within a batch."""
    latency = result.latency
    if latency is None:
        return (result.name, "–", "–", "–")
    return (result.name, f"{latency.fit_s:.1f}", f"{latency.single_ms:.2f}", f"{latency.batch_ms:.4f}")


def markdown_table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table: the first column to the left, numbers to the right."""
    lines = [header, ("---", *("---:" for _ in header[1:])), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _router_json(result: RouterResult) -> dict[str, Any]:
    score = result.score
    entry: dict[str, Any] = {
        "role": result.role,
        "area": score.area,
        "best_accuracy": score.best_accuracy,
        "cost_share": {f"{target:.2f}": score.cost_share[target] for target in TARGETS},
        "frontier": [
            [1000 * cost, accuracy]
            for cost, accuracy in zip(score.frontier.cost_usd.tolist(), score.frontier.accuracy.tolist(), strict=True)
        ],
    }
    if result.reads != "none":
        entry["reads"] = result.reads
    if result.calibration is not None:
        entry["calibration"] = _calibration_json(result.calibration)
    if result.length is not None:
        entry["length_error"] = {name: getattr(result.length, name) for name in LengthError.__slots__}
    if result.latency is not None:
        entry["latency"] = {name: getattr(result.latency, name) for name in Latency.__slots__}
        entry["recalled"] = result.recalled
    return entry


def _calibration_json(calibration: CalibrationReport) -> dict[str, Any]:
    binned = calibration.reliability
    return {
        "brier": calibration.brier,
        "ece": calibration.ece,
        "brier_per_model": _numbers(calibration.brier_per_model.tolist()),
        "ece_per_model": _numbers(calibration.ece_per_model.tolist()),
        "reliability": {
            "forecast": binned.forecast.tolist(),
            "outcome": binned.outcome.tolist(),
            "count": [int(count) for count in binned.count],
        },
    }


def _numbers(values: list[float]) -> list[float | None]:
    """NaN has no place in JSON."""
    return [None if math.isnan(value) else value for value in values]
