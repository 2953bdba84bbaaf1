"""The options of `eccos simulate`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


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
    list[str] | None,
    typer.Option(
        "--engine",
        metavar="NAME=VALUE,...",
        help="Simulate a serving engine pass by pass. Alone, it serves the trace of --arrivals. With --data, "
        "serves=MODEL says which model of the pool it serves. Repeat it for more models. Give gpu= or costs= (a file "
        "of eccos calibrate). More: model, kv_tokens, replicas, shards, scheduler, chunk, batch, overhead, learn.",
    ),
]
