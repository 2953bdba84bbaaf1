"""`eccos simulate`: replay recorded answers as a stream and compare routers."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from eccos_core.cli.arrivals import drawn_times, parse_arrivals
from eccos_core.cli.options import SeedOption, split_names
from eccos_core.cli.output import JsonOption, console, print_json, print_table
from eccos_core.cli.simulate_engine import simulate_engine_trace
from eccos_core.errors import InputError

if TYPE_CHECKING:
    from eccos_core.simulation import Service
    from eccos_core.simulation.study import SimulationReport
    from eccos_core.streaming import FloorTarget, RateTarget


class Promise(StrEnum):
    """Which means keep a floor."""

    MEAN = "mean"
    WINDOW = "window"


class PredictorKind(StrEnum):
    """The predictor that makes the forecasts."""

    RETRIEVAL = "retrieval"
    TRAINED = "trained"
    HYBRID = "hybrid"


FloorOption = Annotated[
    float | None, typer.Option("--floor", metavar="QUALITY", help="The mean quality to keep, from 0 to 1.")
]
PerRequestOption = Annotated[
    float | None, typer.Option("--usd-per-request", metavar="USD", help="A budget per request, instead of a floor.")
]
PerHourOption = Annotated[
    float | None, typer.Option("--usd-per-hour", metavar="USD", help="A budget per hour, instead of a floor.")
]
PerDayOption = Annotated[
    float | None, typer.Option("--usd-per-day", metavar="USD", help="A budget per day, instead of a floor.")
]
RoutersOption = Annotated[
    list[str] | None,
    typer.Option(
        "--routers",
        metavar="NAMES",
        help="The routers to compare, instead of all. Repeat it, or separate names by commas.",
    ),
]
ArrivalsOption = Annotated[
    str,
    typer.Option(
        "--arrivals",
        metavar="poisson|bursty|trace:FILE",
        help="Independent arrivals, bursts that come four times as fast, or the times of a trace: Azure's columns, "
        "Acme's, or a decision log. trace:FILE,speed=2 plays it twice as fast, bad=skip leaves bad rows out.",
    ),
]
LoadOption = Annotated[
    float | None,
    typer.Option(
        "--load",
        min=0.01,
        metavar="SHARE",
        help="Arrivals as a share of what all slots together can serve. Default: 0.6, or the pace of the trace.",
    ),
]
RateOption = Annotated[
    float | None, typer.Option("--rate", metavar="N", help="Requests per second, instead of --load.")
]
SeedsOption = Annotated[
    int,
    typer.Option("--seeds", min=1, metavar="N", help="Simulate N streams, from --seed on, and give 95 % intervals."),
]
WarmUpOption = Annotated[
    float,
    typer.Option(
        "--warm-up", metavar="SHARE", help="Serve this share of the stream first, without counting it in the results."
    ),
]
OrderOption = Annotated[
    list[str] | None,
    typer.Option(
        "--order",
        metavar="NAMES",
        help="Which questions come when: random, easy_first, hard_first, hard_bursts, or length, which gives the "
        "largest requests of a trace the longest answers. Repeat it, or separate names by commas. Default: random.",
    ),
]
ReportOption = Annotated[
    Path | None, typer.Option("--report", metavar="FILE", help="Write a page with tables and plots (.html).")
]
SlotsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--slots",
        metavar="N or MODEL=N",
        help="Calls at once, for all models or for result. Repeat it, or separate values by commas. Default: 8.",
    ),
]
SpeedOption = Annotated[
    list[str] | None,
    typer.Option(
        "--speed",
        metavar="N or MODEL=N",
        help="Output tokens per second, for all models or for result. Repeat it, or use commas. Default: 60.",
    ),
]
FirstTokenOption = Annotated[
    float, typer.Option("--first-token", min=0.0, metavar="SECONDS", help="The time to the first token.")
]
PromiseOption = Annotated[
    Promise,
    typer.Option("--promise", help="Keep the floor as the mean over a horizon, or in every window of 500 requests."),
]
HorizonOption = Annotated[
    int, typer.Option("--horizon", min=2, metavar="N", help="The requests over which the mean is taken.")
]
FloorInsuranceOption = Annotated[
    str,
    typer.Option(
        "--floor-insurance",
        metavar="LEVEL",
        help="Which hard requests windows are prepared for: none, history, or a quality from 0 to 1.",
    ),
]
DeadlineOption = Annotated[
    float, typer.Option("--deadline", min=0.0, metavar="SECONDS", help="How long a request waits for a slot at most.")
]
QueueOption = Annotated[int, typer.Option("--queue", min=0, help="How many requests may wait at most.")]
CountOption = Annotated[
    int | None,
    typer.Option(
        "--count",
        min=1,
        metavar="N",
        help="Draw N requests with repetition, or take the first N of a trace. Default: each test question once, or "
        "the whole trace.",
    ),
]
PredictorOption = Annotated[
    PredictorKind, typer.Option("--predictor", help="The predictor to fit on the training questions.")
]

RecordedOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="OUTCOMES", help="The outcomes file with the recorded answers (.jsonl, .jsonl.gz)."),
]
TariffOption = Annotated[
    Path | None, typer.Option("--prices", metavar="PRICES", help="The JSON file with the price of each model.")
]
EngineOption = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="NAME=VALUE,...",
        help="Simulate a serving engine pass by pass, on the trace of --arrivals, instead of routers. Give gpu= or "
        "costs= (a file of eccos calibrate). More: model, kv_tokens, replicas, shards, scheduler, chunk, batch, "
        "overhead, learn.",
    ),
]

DEFAULT_SLOTS, DEFAULT_SPEED, DEFAULT_LOAD = 8, 60.0, 0.6


def simulate(
    data: RecordedOption = None,
    prices: TariffOption = None,
    floor: FloorOption = None,
    usd_per_request: PerRequestOption = None,
    usd_per_hour: PerHourOption = None,
    usd_per_day: PerDayOption = None,
    routers: RoutersOption = None,
    arrivals: ArrivalsOption = "poisson",
    load: LoadOption = None,
    rate: RateOption = None,
    slots: SlotsOption = None,
    speed: SpeedOption = None,
    first_token: FirstTokenOption = 0.5,
    promise: PromiseOption = Promise.MEAN,
    horizon: HorizonOption = 10_000,
    floor_insurance: FloorInsuranceOption = "none",
    deadline: DeadlineOption = 30.0,
    queue: QueueOption = 1000,
    count: CountOption = None,
    order: OrderOption = None,
    seed: SeedOption = 0,
    seeds: SeedsOption = 1,
    warm_up: WarmUpOption = 0.1,
    predictor: PredictorOption = PredictorKind.RETRIEVAL,
    report: ReportOption = None,
    engine: EngineOption = None,
    json: JsonOption = False,
) -> None:
    """Simulate a stream of requests with slots, a queue and deadlines, for several routers.

    You get each router's quality, cost, waiting times and unanswered requests side by side. Nothing is called.

    An answer takes the time to the first token, then the time of its recorded tokens. The routers see only forecasts,
    which a predictor learns from the training questions. Quality and cost come from the recorded answers.

    Example: eccos simulate --data outcomes.jsonl --prices prices.json --floor 0.7 --routers eccos,greedy

    Example: eccos simulate --data outcomes.jsonl --prices prices.json --floor 0.7 --arrivals trace:azure.csv.gz

    Example: eccos simulate --data outcomes.jsonl --prices prices.json --floor 0.7 --seeds 5 --report stream.html

    Example: eccos simulate --engine gpu=a100,kv_tokens=100000 --arrivals trace:requests.csv
    """
    if engine is not None:
        if report is not None:
            raise InputError("--report draws routers, and --engine simulates none. Drop one of the two.")
        simulate_engine_trace(engine, arrivals, count, as_json=json)
        return
    if data is None or prices is None:
        raise InputError("eccos simulate needs --data and --prices to compare routers, or --engine")
    from eccos_core.encoders import ConcatenatedEncoder, StaticEncoder, SurfaceEncoder
    from eccos_core.io.outcomes import read_outcomes
    from eccos_core.io.prices import read_prices
    from eccos_core.simulation.measures import count_warm_up
    from eccos_core.simulation.orders import check_order
    from eccos_core.simulation.recorded import Draw, forecast_questions
    from eccos_core.simulation.routers import ROUTERS, check_router
    from eccos_core.simulation.study import StreamPlan, run_study

    insurance = _parse_insurance(floor_insurance)
    target = _target(floor, usd_per_request, usd_per_hour, usd_per_day, (promise.value, horizon, insurance))
    source = parse_arrivals(arrivals)
    plan = StreamPlan(
        tuple(check_router(name) for name in split_names(routers) or ROUTERS),
        tuple(check_order(name) for name in split_names(order) or ("random",)),
        tuple(range(seed, seed + seeds)),
        warm_up,
        deadline,
        queue,
    )
    count_warm_up(1, warm_up)
    if report is not None:
        from eccos_core.workflows.simulation_page import check_page

        check_page(report)
    outcomes = read_outcomes(data)
    price_table = read_prices(prices, outcomes.models)
    service = _service(outcomes.models, slots, speed, first_token)
    with console().status("Fitting the predictor on the training questions ...") as status:
        encoder = ConcatenatedEncoder([StaticEncoder(), SurfaceEncoder()])
        questions = forecast_questions(outcomes, price_table, encoder, predictor.value)

        def rate_of(share: float) -> float:
            return questions.scenario(service, Draw(count, seed)).mean_rate(share)

        trace = None
        if isinstance(source, str):
            per_second = rate if rate is not None else rate_of(DEFAULT_LOAD if load is None else load)
        else:
            trace = source.read(count, rate, None if load is None else lambda: rate_of(load))
            per_second = trace.per_second
        requests, size = (count, None) if trace is None else (len(trace), trace.size)
        found = run_study(
            lambda seed, order: questions.scenario(service, Draw(requests, seed, order, size)),
            lambda seed, scenario: (
                drawn_times(str(source), scenario.requests, per_second, seed) if trace is None else trace.times_s
            ),
            target,
            per_second,
            plan,
            dataset=data.name,
            arrivals=arrivals if trace is None else trace.describe(),
            progress=status.update,
        )
    if report is not None:
        from eccos_core.workflows.simulation_page import write_page

        write_page(found, report)
    if json:
        print_json(found.as_json())
        return
    _print(found, report)


def _target(
    floor: float | None,
    per_request: float | None,
    per_hour: float | None,
    per_day: float | None,
    kept: tuple[Literal["mean", "window"], int, float | Literal["history", "none"]],
) -> FloorTarget | RateTarget:
    from eccos_core.streaming import FloorTarget, RateTarget

    given = [value for value in (floor, per_request, per_hour, per_day) if value is not None]
    if len(given) != 1:
        raise InputError("give exactly one of --floor, --usd-per-request, --usd-per-hour and --usd-per-day")
    if floor is not None:
        promise, horizon, insurance = kept
        return FloorTarget(floor, promise, horizon, floor_insurance=insurance)
    if per_request is not None:
        return RateTarget(per_request, "request")
    return RateTarget(per_hour, "hour") if per_hour is not None else RateTarget(given[0], "day")


def _parse_insurance(text: str) -> float | Literal["history", "none"]:
    match text:
        case "history" | "none" as insurance:
            return insurance
    try:
        return float(text)
    except ValueError:
        raise InputError(f"--floor-insurance is {text!r}, it must be none, history or a quality in [0, 1]") from None


def _service(
    models: tuple[str, ...], slots: list[str] | None, speed: list[str] | None, first_token_s: float
) -> dict[str, Service]:
    from eccos_core.simulation import Service

    slot_counts = _by_model("--slots", slots, models, DEFAULT_SLOTS)
    speeds = _by_model("--speed", speed, models, DEFAULT_SPEED)
    return {name: Service(int(slot_counts[name]), first_token_s, speeds[name]) for name in models}


def _by_model(option: str, given: list[str] | None, models: tuple[str, ...], default: float) -> dict[str, float]:
    """Return a number per model: `8` sets all models, `gpt-4o=2` sets result."""
    found = dict.fromkeys(models, default)
    for text in split_names(given):
        name, _, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            raise InputError(f"{option} is {text!r}, it must be a number or MODEL=NUMBER") from None
        if name and name not in found:
            raise InputError(
                f"{option} is {text!r}, but the outcomes have no model {name!r}. They have: {', '.join(models)}."
            )
        found.update(dict.fromkeys([name] if name else models, value))
    return found


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
