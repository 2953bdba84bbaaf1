"""Compare routers on a stream of recorded answers, and print or write what was found."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from eccos_core.cli.arrivals import drawn_times, parse_arrivals
from eccos_core.cli.output import console, print_json, print_table

if TYPE_CHECKING:
    from eccos_core.domain import FloatArray
    from eccos_core.simulation import Scenario, Service
    from eccos_core.simulation.pool_engine import EngineService
    from eccos_core.simulation.recorded import RecordedQuestions
    from eccos_core.simulation.study import SimulationReport, StreamPlan
    from eccos_core.simulation.traces import ArrivalTrace
    from eccos_core.streaming import FloorTarget, RateTarget

DEFAULT_LOAD = 0.6


@dataclass(frozen=True, slots=True)
class Pace:
    """When requests come, and how many: `--arrivals`, `--count`, `--rate`, `--load`."""

    arrivals: str
    count: int | None
    rate: float | None
    load: float | None


@dataclass(frozen=True, slots=True)
class RouterStudy:
    """What `eccos simulate` was asked for."""

    data: Path
    prices: Path
    target: FloorTarget | RateTarget
    plan: StreamPlan
    pace: Pace
    predictor: Literal["retrieval", "trained", "hybrid"]
    report: Path | None

    def show(
        self, services: Callable[[tuple[str, ...]], Mapping[str, Service | EngineService]], *, as_json: bool
    ) -> None:
        """Run the simulation, and print it or write its page. services: returns how each model is served.

        Raises `InputError` for options and files that do not fit together.
        """
        from eccos_core.workflows.page_figures import check_page
        from eccos_core.workflows.simulation_page import write_page

        if self.report is not None:
            check_page(self.report)
        found = self._run(services)
        if self.report is not None:
            write_page(found, self.report)
        if as_json:
            print_json(found.as_json())
        else:
            _print(found, self.report)

    def _run(self, services: Callable[[tuple[str, ...]], Mapping[str, Service | EngineService]]) -> SimulationReport:
        from eccos_core.encoders import ConcatenatedEncoder, StaticEncoder, SurfaceEncoder
        from eccos_core.io.outcomes import read_outcomes
        from eccos_core.io.prices import read_prices
        from eccos_core.simulation.measures import count_warm_up
        from eccos_core.simulation.recorded import Draw, forecast_questions
        from eccos_core.simulation.study import run_study

        parse_arrivals(self.pace.arrivals)
        count_warm_up(1, self.plan.warm_up)
        outcomes = read_outcomes(self.data)
        price_table = read_prices(self.prices, outcomes.models)
        service = services(outcomes.models)
        with console().status("Fitting the predictor on the training questions ...") as status:
            encoder = ConcatenatedEncoder([StaticEncoder(), SurfaceEncoder()])
            questions = forecast_questions(outcomes, price_table, encoder, self.predictor)
            per_second, trace = self._pace(questions, service)
            requests, size = (self.pace.count, None) if trace is None else (len(trace), trace.size)

            def draw_times(seed: int, scenario: Scenario) -> FloatArray:
                if trace is not None:
                    return trace.times_s
                return drawn_times(self.pace.arrivals, scenario.requests, per_second, seed)

            return run_study(
                lambda seed, order: questions.scenario(service, Draw(requests, seed, order, size)),
                draw_times,
                self.target,
                per_second,
                self.plan,
                dataset=self.data.name,
                arrivals=self.pace.arrivals if trace is None else trace.describe(),
                progress=status.update,
            )

    def _pace(
        self, questions: RecordedQuestions, service: Mapping[str, Service | EngineService]
    ) -> tuple[float, ArrivalTrace | None]:
        """Return the requests per second, and the trace that says when they come, if there is one."""
        from eccos_core.simulation.recorded import Draw

        count, rate, load = self.pace.count, self.pace.rate, self.pace.load

        def rate_of(share: float) -> float:
            return questions.scenario(service, Draw(count, self.plan.seeds[0])).mean_rate(share)

        source = parse_arrivals(self.pace.arrivals)
        if isinstance(source, str):
            return rate if rate is not None else rate_of(DEFAULT_LOAD if load is None else load), None
        trace = source.read(count, rate, None if load is None else lambda: rate_of(load))
        return trace.per_second, trace


def _print(found: SimulationReport, page: Path | None) -> None:
    from eccos_core.workflows.simulation_tables import simulation_tables, summary

    out = console(sys.stdout)
    for line in summary(found):
        out.print(line, soft_wrap=True, markup=False)
    for table in simulation_tables(found):
        print_table(out, table.title, table.header, table.rows, numbers=set(table.header[1:]))
        out.print(table.explanation, soft_wrap=True, markup=False)
    if page is not None:
        out.print(f"Page: {page}", soft_wrap=True, markup=False)
