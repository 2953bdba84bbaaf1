"""`eccos simulate`: replay recorded answers as a stream and compare routers, or simulate a serving engine."""

from __future__ import annotations

from eccos_core.cli.options import SeedOption, split_names
from eccos_core.cli.output import JsonOption
from eccos_core.cli.simulate_engine import simulate_engine_trace
from eccos_core.cli.simulate_options import (
    ArrivalsOption,
    CountOption,
    DeadlineOption,
    EngineOption,
    FirstTokenOption,
    FloorInsuranceOption,
    FloorOption,
    HorizonOption,
    LoadOption,
    OrderOption,
    PerDayOption,
    PerHourOption,
    PerRequestOption,
    PredictorKind,
    PredictorOption,
    Promise,
    PromiseOption,
    QueueOption,
    RateOption,
    RecordedOption,
    ReportOption,
    RoutersOption,
    SeedsOption,
    SlotsOption,
    SpeedOption,
    TariffOption,
    WarmUpOption,
)
from eccos_core.cli.simulate_routers import Pace, RouterStudy
from eccos_core.cli.simulate_values import parse_insurance, parse_services, parse_target
from eccos_core.errors import InputError


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

    Example: eccos simulate --data outcomes.jsonl --prices prices.json --floor 0.7 --engine serves=small,gpu=a100
    """
    if data is None or prices is None:
        if not engine:
            raise InputError("eccos simulate needs --data and --prices to compare routers, or --engine")
        if data is not None or prices is not None:
            raise InputError("--data and --prices go together. Give both to compare routers, or none of the two.")
        if len(engine) > 1:
            raise InputError("several --engine serve a pool, which needs --data and --prices")
        simulate_engine_trace(engine[0], arrivals, count, report, as_json=json)
        return
    from eccos_core.simulation.orders import check_order
    from eccos_core.simulation.routers import ROUTERS, check_router
    from eccos_core.simulation.study import StreamPlan

    insurance = parse_insurance(floor_insurance)
    plan = StreamPlan(
        tuple(check_router(name) for name in split_names(routers) or ROUTERS),
        tuple(check_order(name) for name in split_names(order) or ("random",)),
        tuple(range(seed, seed + seeds)),
        warm_up,
        deadline,
        queue,
    )
    study = RouterStudy(
        data=data,
        prices=prices,
        target=parse_target(floor, usd_per_request, usd_per_hour, usd_per_day, (promise.value, horizon, insurance)),
        plan=plan,
        pace=Pace(arrivals, count, rate, load),
        predictor=predictor.value,
        report=report,
    )
    study.show(lambda models: parse_services(models, slots, speed, first_token, engine), as_json=json)
