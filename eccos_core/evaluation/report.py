"""The report of an evaluation: its values, and its JSON for other programs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from eccos_core.evaluation.bootstrap import MetricDifference
from eccos_core.evaluation.calibration import CalibrationReport, LengthError
from eccos_core.evaluation.kept_promises import KeptPromises
from eccos_core.evaluation.metrics import ACCURACY_TARGETS, RoutingScore
from eccos_core.evaluation.paper_metrics import PaperMetrics
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
    """One router's score. A router that makes forecasts also has calibration, length error and kept promises.

    calls: for plans of several calls, the mean calls per question at the cheapest setting that reaches each target.
    from_cache: the answers and the latency come from an earlier run with the same data, settings and code.
    """

    name: str
    role: RouterRole
    score: RoutingScore
    paper: PaperMetrics
    reads: str = "none"
    calibration: CalibrationReport | None = None
    length: LengthError | None = None
    promises: KeptPromises | None = None
    calls: dict[float, float | None] | None = None
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
    """The result of an evaluation. train, test: numbers of rows. results: by name, in the order of the tables.

    With several folds, `train` is the smallest number of training rows. differences: of every pair of routers.
    """

    dataset: str
    train: int
    test: int
    models: tuple[str, ...]
    best_single: BestSingle
    results: Mapping[str, RouterResult]
    differences: tuple[MetricDifference, ...] = ()
    encoders: Mapping[str, EncoderFacts] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object of docs/reference/evaluation.md. null means that a target is out of reach."""
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
            "routers": {name: router_as_json(result) for name, result in self.results.items()},
            "differences": [_difference_as_json(each) for each in self.differences],
            "encoders": {
                role: {"name": facts.name, "dimensions": facts.dimensions, "encode_ms": facts.encode_ms}
                for role, facts in self.encoders.items()
            },
            "notes": list(self.notes),
        }

    @property
    def best_router(self) -> str | None:
        """The name of the router with the largest area, None where there are no two to compare."""
        routers = [result for result in self.results.values() if result.role in ("eccos", "baseline")]
        return max(routers, key=lambda each: each.score.area or 0.0).name if len(routers) > 1 else None

    def differences_to(self, router: str, metric: str = "area") -> list[MetricDifference]:
        """Return the difference of every other router to this one, by a metric of `bootstrap.METRICS`."""
        return [
            each if each.other == router else each.reversed()
            for each in self.differences
            if each.metric == metric and router in (each.router, each.other)
        ]

    def write_json(self, path: str | Path) -> None:
        """Write the JSON object to a file, whole or not at all."""
        with atomic_writer(Path(path)) as stream:
            stream.write(json.dumps(self.as_json(), indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n")


def router_as_json(result: RouterResult) -> dict[str, Any]:
    """Return the JSON object of one router. null marks what is out of reach or not defined."""
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
    gap = result.paper.gap
    entry["paper"] = {
        "aiq": result.paper.aiq,
        "arena": result.paper.arena,
        **({"apgr": None, "cpt50": None, "cpt80": None} if gap is None else asdict(gap)),
        "task_mean": result.paper.task_mean,
        "task_accuracy": result.paper.task_accuracy,
    }
    if result.reads != "none":
        entry["reads"] = result.reads
    if result.calibration is not None:
        entry["calibration"] = _calibration_as_json(result.calibration)
    if result.length is not None:
        entry["length_error"] = {name: getattr(result.length, name) for name in LengthError.__slots__}
    if result.promises is not None and len(result.promises.asked):
        entry["promises"] = {
            "asked": result.promises.asked.tolist(),
            "realised": result.promises.realised.tolist(),
            "within_one_point": result.promises.close_share,
            "mean_difference": result.promises.mean_difference,
            "worst": result.promises.worst,
        }
    if result.calls is not None:
        entry["calls"] = {f"{target:.2f}": result.calls[target] for target in ACCURACY_TARGETS}
    if result.latency is not None:
        entry["latency"] = {name: getattr(result.latency, name) for name in Latency.__slots__}
        entry["from_cache"] = result.from_cache
    return entry


def _difference_as_json(difference: MetricDifference) -> dict[str, Any]:
    ends = {
        end: value if math.isfinite(value) else None for end in ("low", "high") for value in [getattr(difference, end)]
    }
    return asdict(difference) | ends | {"verdict": difference.verdict}


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
