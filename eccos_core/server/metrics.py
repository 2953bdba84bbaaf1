"""What Prometheus reads at `/metrics`: requests, errors, latency, tokens, cost, load, breakers, and budgets left."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, TypeAlias, runtime_checkable

from eccos_core.domain import Completion, ModelStatus, RouterStatus

Labels: TypeAlias = tuple[tuple[str, str], ...]
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@runtime_checkable
class BudgetReport(Protocol):
    """A gate that knows what is left of each budget."""

    def budgets_left(self) -> Mapping[str, float]:
        """Return the USD that are left, by the name of the budget."""
        ...


class ServerMetrics:
    """Counts what the server does, in the process's memory. All methods run on the event loop.

    `worker`: the number of this process where several serve one port. It becomes a label of every metric.
    """

    def __init__(self, worker: int | None = None) -> None:
        self.in_flight = 0
        self._worker = worker
        self._requests: dict[Labels, int] = defaultdict(int)
        self._seconds: dict[Labels, list[int]] = {}
        self._seconds_sum: dict[Labels, float] = defaultdict(float)
        self._errors: dict[Labels, int] = defaultdict(int)
        self._tokens: dict[Labels, int] = defaultdict(int)
        self._usd: dict[Labels, float] = defaultdict(float)
        self._answers: dict[Labels, int] = defaultdict(int)
        self._disconnects = 0

    def count_request(self, route: str, status: int, seconds: float) -> None:
        """Count a request that has ended. Status 499: the client had left."""
        self._requests[("route", route), ("status", str(status))] += 1
        where: Labels = (("route", route),)
        buckets = self._seconds.setdefault(where, [0] * (len(BUCKETS_S) + 1))
        buckets[bisect_left(BUCKETS_S, seconds)] += 1
        self._seconds_sum[where] += seconds
        if status == 499:
            self._disconnects += 1

    def count_error(self, kind: str) -> None:
        """Count an error that a caller got, by its kind."""
        self._errors[(("kind", kind),)] += 1

    def count_answer(self, completion: Completion) -> None:
        """Count the tokens and the cost of an answer."""
        model = ("model", completion.model)
        self._answers[(model,)] += 1
        self._usd[(model,)] += completion.cost_usd
        self._tokens[model, ("direction", "input")] += completion.input_tokens
        self._tokens[model, ("direction", "output")] += completion.output_tokens

    def count_embeddings(self, model: str, tokens: int, cost_usd: float) -> None:
        """Count the tokens and the cost of one call that embedded."""
        labels: Labels = (("model", model),)
        self._answers[labels] += 1
        self._usd[labels] += cost_usd
        self._tokens[(*labels, ("direction", "input"))] += tokens

    def render(self, status: RouterStatus, budgets: Mapping[str, float], *, ready: bool) -> str:
        """Return all metrics in Prometheus' text format."""
        lines = [*self._own_lines(), *_status_lines(status)]
        left: dict[Labels, float] = {(("budget", name),): usd for name, usd in budgets.items()}
        lines += _family("eccos_budget_left_usd", "gauge", "USD left of a budget.", left)
        lines += _family("eccos_ready", "gauge", "1 while new requests are taken.", {(): float(ready)})
        if self._worker is not None:
            lines = [line if line.startswith("#") else _of_worker(line, self._worker) for line in lines]
        return "\n".join(lines) + "\n"

    def _own_lines(self) -> Iterator[str]:
        yield from _family("eccos_requests_total", "counter", "Requests by route and status.", self._requests)
        yield from _family("eccos_errors_total", "counter", "Errors that callers got, by kind.", self._errors)
        yield from _family("eccos_disconnects_total", "counter", "Clients that left early.", {(): self._disconnects})
        yield from _family("eccos_in_flight_requests", "gauge", "HTTP requests in flight.", {(): self.in_flight})
        yield from self._histogram()
        yield from _family("eccos_answers_total", "counter", "Answers by model.", self._answers)
        yield from _family("eccos_tokens_total", "counter", "Tokens by model and direction.", self._tokens)
        yield from _family("eccos_cost_usd_total", "counter", "USD paid, by model.", self._usd)

    def _histogram(self) -> Iterator[str]:
        name = "eccos_request_seconds"
        yield f"# HELP {name} Seconds from the request's headers to the end of its answer."
        yield f"# TYPE {name} histogram"
        for where, counts in self._seconds.items():
            total = 0
            for most, count in zip((*map(str, BUCKETS_S), "+Inf"), counts, strict=True):
                total += count
                yield f"{name}_bucket{_labels((*where, ('le', most)))} {total}"
            yield f"{name}_sum{_labels(where)} {self._seconds_sum[where]:.6f}"
            yield f"{name}_count{_labels(where)} {total}"


def _status_lines(status: RouterStatus) -> Iterator[str]:
    models = status.workload.models
    waiting: Mapping[Labels, float] = {(): status.workload.waiting}
    yield from _family("eccos_queue_requests", "gauge", "Requests that wait for a slot.", waiting)
    numbers: dict[str, tuple[str, Callable[[ModelStatus], float]]] = {
        "eccos_model_in_flight": ("Calls in flight.", lambda each: each.in_flight),
        "eccos_model_free_slots": ("Requests that a model can take now.", lambda each: each.free_slots),
        "eccos_model_error_rate": ("Weighted share of failed calls.", lambda each: each.error_rate),
        "eccos_model_breaker_open": ("1: open, 0.5: half open, 0: closed.", lambda each: _BREAKER[each.breaker]),
    }
    for name, (told, read) in numbers.items():
        yield from _family(name, "gauge", told, {(("model", each.model),): float(read(each)) for each in models})
    for name, told, counts in (
        ("eccos_model_calls_total", "Calls since the start.", {each.model: each.calls for each in models}),
        ("eccos_model_failures_total", "Failed calls.", {each.model: each.failures for each in models}),
    ):
        yield from _family(name, "counter", told, {(("model", model),): count for model, count in counts.items()})
    dropped: Mapping[Labels, float] = {(): status.decisions_dropped}
    yield from _family("eccos_decisions_dropped_total", "counter", "Log entries that were lost.", dropped)


_BREAKER: Mapping[str, float] = {"closed": 0.0, "half_open": 0.5, "open": 1.0}


def _family(name: str, kind: str, told: str, values: Mapping[Labels, float]) -> Iterator[str]:
    yield f"# HELP {name} {told}"
    yield f"# TYPE {name} {kind}"
    for labels, value in values.items():
        yield f"{name}{_labels(labels)} {value:.10g}"


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    inside = ",".join(f'{name}="{_escape(value)}"' for name, value in labels)
    return "{" + inside + "}"


def _of_worker(line: str, worker: int) -> str:
    """Add the worker's number to the labels of a line, which are the text before its last space."""
    series, value = line.rsplit(" ", 1)
    labels = f'{series[:-1]},worker="{worker}"}}' if series.endswith("}") else f'{series}{{worker="{worker}"}}'
    return f"{labels} {value}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
