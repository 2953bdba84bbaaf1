"""Plan a batch without calling a model: the assignment, its cost, its prices in words, and other floors."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eccos_core.domain import Assignment, Request, RoutingProblem
from eccos_core.errors import DataError, EccosError
from eccos_core.io.files import atomic_writer, describe, read_json_lines
from eccos_core.io.optional import needs_extra
from eccos_core.optimizer import WhatIf, explain, what_if
from eccos_core.router import Router
from eccos_core.routing.batch_arms import BatchArms
from eccos_core.routing.patient_batch import find_patience
from eccos_core.routing.prepared import PreparedBatch

FLOORS = 12


@dataclass(frozen=True, slots=True, eq=False)
class BatchPlan:
    """The plan of a batch.

    calls: the number of requests per model. sentences: the prices in words, each checked by solving again. floors: the
    cost of other quality floors.
    """

    problem: RoutingProblem
    assignment: Assignment
    requests: tuple[Request, ...]
    calls: Mapping[str, int]
    sentences: tuple[str, ...]
    floors: tuple[WhatIf, ...]


def read_requests(path: str | Path) -> list[Request]:
    """Read the requests of a `.jsonl` or `.jsonl.gz` file, with `query` or `messages` on every line.

    A line may also have `id`, `min_quality`, `allow`, `deny`, `required_tags`, `session_id`, `tenant` and `max_tokens`.
    Other keys are ignored, so a questions or outcomes file works too. Raises `DataError` with the line.
    """
    file = str(path)
    requests = [parse_request(entry, file, line) for line, entry in read_json_lines(path)]
    if not requests:
        raise DataError(file, "the file holds no requests. Write one JSON object per line, with query or messages.")
    return requests


def parse_request(entry: Mapping[str, Any], file: str, line: int) -> Request:
    """Return the request of one line, see `read_requests`. Raises `DataError`."""
    source = entry.get("messages", entry.get("query"))
    if not isinstance(source, str | list):
        raise DataError(file, f"query is {describe(source)}; every line needs a text, or messages", line)
    fields: dict[str, Any] = {key: entry[key] for key in ("min_quality", "session_id", "tenant") if key in entry}
    for key in ("allow", "deny", "required_tags"):
        if key in entry:
            if not isinstance(entry[key], list) or not all(isinstance(name, str) for name in entry[key]):
                raise DataError(file, f"{key} is {describe(entry[key])}, it must be a list of names", line)
            fields[key] = frozenset(entry[key])
    if "id" in entry:
        fields["id"] = str(entry["id"])
    if "max_tokens" in entry:
        fields["parameters"] = {"max_tokens": entry["max_tokens"]}
    try:
        return Request.of(source, **fields)
    except EccosError as error:
        raise DataError(file, str(error), line) from error


def plan_batch(router: Router, requests: list[Request], patience_s: float | None = None) -> BatchPlan:
    """Solve the batch with the router's policy and the slots that are free now. Raises as `Router.route` does.

    With `patience_s`, batch APIs of providers that answer within so many seconds are models too (`large@batch`).
    """
    prepared = router.decider.with_plans(router.decider.prepare(requests), router.policy)
    problem = router.decider.problem(prepared, router.policy, router.workload.free_slots(router.parts.names))
    patience = find_patience(router.parts, patience_s)
    if patience is not None:
        arms = BatchArms(router.parts, patience.offers)
        problem = arms.widen(problem, arms.offer(prepared.under(router.policy)))
    assignment = router.decider.solve(problem, router.policy)
    calls = Counter(int(column) for column in assignment.model_index)
    return BatchPlan(
        problem=problem,
        assignment=assignment,
        requests=tuple(requests),
        calls={name: calls[column] for column, name in enumerate(problem.models)},
        sentences=(*explain(problem, assignment), *_describe_plans(prepared, assignment)),
        floors=what_if(problem, _floors(problem)),
    )


def _describe_plans(prepared: PreparedBatch, assignment: Assignment) -> list[str]:
    """Say how many calls the batch's plans are expected to take."""
    if prepared.gains is None:
        return []
    calls = prepared.gains.calls[np.arange(len(prepared.requests)), assignment.model_index]
    again = int((calls > 1).sum())
    return [
        f"Answers are looked at. {again:,} of {len(calls):,} requests may be asked again: {calls.sum():,.1f} calls are "
        "expected in all. Cost and quality are those of whole plans."
    ]


def _floors(problem: RoutingProblem) -> list[float]:
    """Return floors from the quality of the cheapest eligible models to that of the best ones."""
    cost = np.where(problem.eligible, problem.cost_usd, np.inf)
    quality = np.where(problem.eligible, problem.quality, -np.inf)
    low = float(problem.quality[np.arange(len(cost)), cost.argmin(axis=1)].mean())
    high = float(quality.max(axis=1).mean())
    return [round(float(floor), 4) for floor in np.linspace(min(low, high), high, FLOORS)]


def draw_plan(plan: BatchPlan, path: Path) -> None:
    """Draw the cost of the batch over its mean quality, with the plan's own point, as PNG."""
    with needs_extra("report", "a picture of the plan"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    attained = [row for row in plan.floors if row.attained]
    axes.plot([row.quality for row in attained], [row.cost_usd for row in attained], marker="o", label="what if")
    axes.scatter(
        [plan.assignment.quality], [plan.assignment.cost_usd], s=140, facecolor="white", edgecolor="#d55e00",
        linewidth=2.5, zorder=5, label="this plan",
    )  # fmt: skip
    axes.set_xlabel("mean predicted quality of the batch")
    axes.set_ylabel(f"USD for {len(plan.requests)} requests")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    with atomic_writer(path) as stream:
        stream.write(content.getvalue())
