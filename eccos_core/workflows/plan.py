"""A batch, planned before anything is called: the assignment, its cost, its prices in words, and what if."""

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

FLOORS = 12


@dataclass(frozen=True, slots=True, eq=False)
class BatchPlan:
    """An assignment before anything is called.

    calls: model -> how many of the batch it gets. sentences: the prices in words, each checked by solving again.
    floors: what other quality floors would cost.
    """

    problem: RoutingProblem
    assignment: Assignment
    requests: tuple[Request, ...]
    calls: Mapping[str, int]
    sentences: tuple[str, ...]
    floors: tuple[WhatIf, ...]


def read_requests(path: str | Path) -> list[Request]:
    """The requests of a `.jsonl` or `.jsonl.gz` file: `query` or `messages` on every line.

    `id`, `min_quality`, `allow`, `deny`, `required_tags`, `session_id`, `tenant` and `max_tokens` are the request's
    own; other keys are left alone, so that a questions or outcomes file will do. Raises `DataError` with the line.
    """
    file = str(path)
    requests = [_request(entry, file, line) for line, entry in read_json_lines(path)]
    if not requests:
        raise DataError(file, "the file holds no requests; write one JSON object a line, with a query or messages")
    return requests


def _request(entry: Mapping[str, Any], file: str, line: int) -> Request:
    source = entry.get("messages", entry.get("query"))
    if not isinstance(source, str | list):
        raise DataError(file, f"query is {describe(source)}; every line needs a text, or messages", line)
    fields: dict[str, Any] = {key: entry[key] for key in ("min_quality", "session_id", "tenant") if key in entry}
    for key in ("allow", "deny", "required_tags"):
        if key in entry:
            if not isinstance(entry[key], list) or not all(isinstance(name, str) for name in entry[key]):
                raise DataError(file, f"{key} is {describe(entry[key])}, must be a list of names", line)
            fields[key] = frozenset(entry[key])
    if "id" in entry:
        fields["id"] = str(entry["id"])
    if "max_tokens" in entry:
        fields["parameters"] = {"max_tokens": entry["max_tokens"]}
    try:
        return Request.of(source, **fields)
    except EccosError as error:
        raise DataError(file, str(error), line) from error


def plan_batch(router: Router, requests: list[Request]) -> BatchPlan:
    """Solves the batch under the router's policy, with the slots that are free now. Raises as `Router.route` does."""
    prepared = router.decider.prepare(requests)
    problem = router.decider.problem(prepared, router.policy, router.workload.free_slots())
    assignment = router.decider.optimizer.solve(problem)
    calls = Counter(int(column) for column in assignment.model_index)
    return BatchPlan(
        problem=problem,
        assignment=assignment,
        requests=tuple(requests),
        calls={name: calls[column] for column, name in enumerate(problem.models)},
        sentences=tuple(explain(problem, assignment)),
        floors=what_if(problem, _floors(problem)),
    )


def _floors(problem: RoutingProblem) -> list[float]:
    """Floors from what the cheapest eligible models give to the best that eligible models can give."""
    cost = np.where(problem.eligible, problem.cost_usd, np.inf)
    quality = np.where(problem.eligible, problem.quality, -np.inf)
    low = float(problem.quality[np.arange(len(cost)), cost.argmin(axis=1)].mean())
    high = float(quality.max(axis=1).mean())
    return [round(float(floor), 4) for floor in np.linspace(min(low, high), high, FLOORS)]


def draw_plan(made: BatchPlan, path: Path) -> None:
    """Cost of the batch over its quality floor, with the plan's own point, as PNG."""
    with needs_extra("report", "a picture of the plan"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    attained = [row for row in made.floors if row.attained]
    axes.plot([row.quality for row in attained], [row.cost_usd for row in attained], marker="o", label="what if")
    axes.scatter(
        [made.assignment.quality], [made.assignment.cost_usd], s=140, facecolor="white", edgecolor="#d55e00",
        linewidth=2.5, zorder=5, label="this plan",
    )  # fmt: skip
    axes.set_xlabel("mean predicted quality of the batch")
    axes.set_ylabel(f"USD for {len(made.requests)} requests")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    with atomic_writer(path) as stream:
        stream.write(content.getvalue())
