"""`eccos simulate`: what would a stream of these requests have cost, waited and been worth, by router?"""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from eccos_core.cli.output import JsonOption, console, print_json, print_table
from eccos_core.errors import InputError

if TYPE_CHECKING:
    from eccos_core.simulation import Service, SimulationResult
    from eccos_core.streaming import FloorTarget, RateTarget


class Arrivals(StrEnum):
    """How requests arrive."""

    POISSON = "poisson"
    BURSTY = "bursty"


class PredictorKind(StrEnum):
    """What forecasts them."""

    RETRIEVAL = "retrieval"
    TRAINED = "trained"
    HYBRID = "hybrid"


DataOption = Annotated[Path, typer.Option("--data", metavar="OUTCOMES", help="Outcomes file, .jsonl or .jsonl.gz.")]
PricesOption = Annotated[Path, typer.Option("--prices", metavar="PRICES", help="JSON file with each model's prices.")]
FloorOption = Annotated[float | None, typer.Option("--floor", help="Least mean predicted quality, in [0, 1].")]
PerRequestOption = Annotated[float | None, typer.Option("--usd-per-request", help="Instead of a floor: a budget rate.")]
PerHourOption = Annotated[float | None, typer.Option("--usd-per-hour", help="Instead of a floor: a budget rate.")]
PerDayOption = Annotated[float | None, typer.Option("--usd-per-day", help="Instead of a floor: a budget rate.")]
RoutersOption = Annotated[str | None, typer.Option("--routers", metavar="NAMES", help="Only these, comma-separated.")]
ArrivalsOption = Annotated[Arrivals, typer.Option("--arrivals", help="Independent, or in bursts four times as fast.")]
LoadOption = Annotated[float, typer.Option("--load", min=0.01, help="Arrivals as a share of what all slots can serve.")]
RateOption = Annotated[float | None, typer.Option("--rate", help="Requests per second, instead of --load.")]
SlotsOption = Annotated[
    list[str] | None, typer.Option("--slots", metavar="N or MODEL=N", help="Concurrency, for all or one model (again).")
]
SpeedOption = Annotated[
    list[str] | None, typer.Option("--speed", metavar="N or MODEL=N", help="Output tokens per second, for all or one.")
]
FirstTokenOption = Annotated[float, typer.Option("--first-token", min=0.0, help="Seconds to the first token.")]
FloorInsuranceOption = Annotated[
    str,
    typer.Option("--floor-insurance", help="What a floor is insured against: none, history, or a quality."),
]
DeadlineOption = Annotated[float, typer.Option("--deadline", min=0.0, help="Seconds a request may wait for a slot.")]
QueueOption = Annotated[int, typer.Option("--queue", min=0, help="Most requests waiting.")]
RequestsOption = Annotated[
    int | None, typer.Option("--requests", min=1, help="So many, drawn with repetition; else each test question once.")
]
SeedOption = Annotated[int, typer.Option("--seed", help="Of the order and times of arrival.")]
PredictorOption = Annotated[PredictorKind, typer.Option("--predictor", help="Fitted on the training questions.")]

DEFAULT_SLOTS, DEFAULT_SPEED = 8, 60.0


def simulate(
    data: DataOption,
    prices: PricesOption,
    floor: FloorOption = None,
    usd_per_request: PerRequestOption = None,
    usd_per_hour: PerHourOption = None,
    usd_per_day: PerDayOption = None,
    routers: RoutersOption = None,
    arrivals: ArrivalsOption = Arrivals.POISSON,
    load: LoadOption = 0.6,
    rate: RateOption = None,
    slots: SlotsOption = None,
    speed: SpeedOption = None,
    first_token: FirstTokenOption = 0.5,
    floor_insurance: FloorInsuranceOption = "none",
    deadline: DeadlineOption = 30.0,
    queue: QueueOption = 1000,
    requests: RequestsOption = None,
    seed: SeedOption = 0,
    predictor: PredictorOption = PredictorKind.RETRIEVAL,
    as_json: JsonOption = False,
) -> None:
    """Replay recorded outcomes as a stream, with slots, a queue and deadlines, once per router.

    A discrete-event simulation: nothing is called. An answer takes the time to the first token and then as long as its
    recorded tokens take. Decisions see forecasts, learned from the training questions; accuracy and cost are real.
    """
    from eccos_core.encoders import ConcatenatedEncoder, StaticEncoder, SurfaceEncoder
    from eccos_core.io.outcomes import read_outcomes, read_prices
    from eccos_core.simulation import bursty_arrivals, poisson_arrivals, stream_routers_named
    from eccos_core.simulation import simulate as run
    from eccos_core.simulation.recorded import Draw, recorded_scenario
    from eccos_core.simulation.routers import ROUTERS

    target = _target(floor, usd_per_request, usd_per_hour, usd_per_day, floor_insurance)
    outcomes = read_outcomes(data)
    tariff = read_prices(prices, outcomes.models)
    service = _service(outcomes.models, slots, speed, first_token)
    results = []
    with console().status("Learning from the training questions ...") as status:
        encoder = ConcatenatedEncoder([StaticEncoder(), SurfaceEncoder()])
        scenario = recorded_scenario(outcomes, tariff, encoder, predictor.value, service, Draw(requests, seed))
        per_second = scenario.mean_rate(load) if rate is None else rate
        draw = poisson_arrivals if arrivals is Arrivals.POISSON else bursty_arrivals
        times = draw(scenario.requests, per_second, seed)
        names = [name.strip() for name in routers.split(",")] if routers else list(ROUTERS)
        for name, make in stream_routers_named(names, scenario, target, per_second).items():
            status.update(f"Simulating {name} ...")
            results.append(run(scenario, name, make, times, deadline_s=deadline, queue_length=queue))
    if as_json:
        print_json(
            {
                "requests": scenario.requests,
                "requests_per_second": per_second,
                "arrivals": arrivals.value,
                "models": list(scenario.models),
                "results": [asdict(result) for result in results],
            }
        )
        return
    _print(results, scenario.models, f"{scenario.requests:,} requests, {per_second:.3g} a second, {arrivals.value}")


def _target(
    floor: float | None, per_request: float | None, per_hour: float | None, per_day: float | None, floor_insurance: str
) -> FloorTarget | RateTarget:
    from eccos_core.streaming import FloorTarget, RateTarget

    given = [value for value in (floor, per_request, per_hour, per_day) if value is not None]
    if len(given) != 1:
        raise InputError("give exactly one of --floor, --usd-per-request, --usd-per-hour and --usd-per-day")
    if floor is not None:
        return FloorTarget(floor, floor_insurance=_level(floor_insurance))
    if per_request is not None:
        return RateTarget(per_request, "request")
    return RateTarget(per_hour, "hour") if per_hour is not None else RateTarget(given[0], "day")


def _level(text: str) -> float | Literal["history", "none"]:
    match text:
        case "history" | "none" as level:
            return level
    try:
        return float(text)
    except ValueError:
        raise InputError(f"--floor-insurance is {text!r}, must be none, history or a quality in [0, 1]") from None


def _service(
    models: tuple[str, ...], slots: list[str] | None, speed: list[str] | None, first_token_s: float
) -> dict[str, Service]:
    from eccos_core.simulation import Service

    many, fast = _by_model("--slots", slots, models, DEFAULT_SLOTS), _by_model("--speed", speed, models, DEFAULT_SPEED)
    return {name: Service(int(many[name]), first_token_s, fast[name]) for name in models}


def _by_model(option: str, given: list[str] | None, models: tuple[str, ...], default: float) -> dict[str, float]:
    """`8` is for all models, `gpt-4o=2` for one."""
    found = dict.fromkeys(models, default)
    for text in given or ():
        name, _, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            raise InputError(f"{option} {text!r}: must be a number or MODEL=NUMBER") from None
        if name and name not in found:
            raise InputError(f"{option} {text!r}: the outcomes have no model {name!r}, they have {', '.join(models)}")
        found.update(dict.fromkeys([name] if name else models, value))
    return found


def _print(results: list[SimulationResult], models: tuple[str, ...], title: str) -> None:
    import sys

    out = console(sys.stdout)
    columns = ["router", "accuracy", "forecast", "USD", "wait p50 s", "p95", "p99", "missed", "refused", "busiest"]
    rows = []
    for one in results:
        share, busiest = max(zip(one.utilisation, models, strict=True))
        rows.append(
            [
                one.router,
                f"{one.quality:.4f}",
                f"{one.forecast_quality:.4f}",
                f"{one.cost_usd:.4g}",
                f"{one.waiting_median_s:.2f}",
                f"{one.waiting_p95_s:.2f}",
                f"{one.waiting_p99_s:.2f}",
                str(one.missed),
                str(one.refused),
                f"{busiest} {100 * share:.0f} %",
            ]
        )
    print_table(out, title, columns, rows, numbers=set(columns[1:9]))
