"""`eccos evaluate`: what would each router have bought, replayed over recorded outcomes?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eccos_core.cli.output import console, print_json, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eccos_core.evaluation.report import EvaluationReport
    from eccos_core.protocols import Encoder

DataOption = Annotated[Path, typer.Option("--data", metavar="OUTCOMES", help="Outcomes file, .jsonl or .jsonl.gz.")]
PricesOption = Annotated[Path, typer.Option("--prices", metavar="PRICES", help="JSON file with each model's prices.")]
RoutersOption = Annotated[
    list[str] | None,
    typer.Option("--routers", metavar="NAMES", help="Only these routers, separated by commas, instead of the usual."),
]
BaselinesOption = Annotated[
    bool, typer.Option("--baselines", help="Also what people would use instead: AIOS, RouteLLM, Avengers-Pro, ...")
]
JsonFileOption = Annotated[Path | None, typer.Option("--json", metavar="OUT", help="Write JSON ('-': print it).")]
MarkdownOption = Annotated[Path | None, typer.Option("--markdown", metavar="OUT", help="Write tables as Markdown.")]
HtmlOption = Annotated[
    Path | None, typer.Option("--html", metavar="OUT", help="Write one HTML page with interactive plots.")
]
PictureOption = Annotated[Path | None, typer.Option("--picture", metavar="OUT", help="Write the frontier as .png.")]
TrainDataOption = Annotated[
    Path | None,
    typer.Option("--train-data", metavar="OUTCOMES", help="Learn from this file and test on all of --data."),
]
TrainRowsOption = Annotated[
    int | None, typer.Option("--train-rows", min=1, metavar="N", help="Learn from N of the training questions only.")
]
SeedOption = Annotated[int, typer.Option("--seed", help="Which N questions --train-rows draws.")]
EncoderOption = Annotated[
    str,
    typer.Option(
        "--encoder", help="minilm, static, surface, a sentence-transformers folder or name, or several joined with '+'."
    ),
]
DeviceOption = Annotated[str, typer.Option("--device", help="Where the encoder runs: auto, cpu, cuda.")]

CacheOption = Annotated[
    Path | None,
    typer.Option("--cache", metavar="FOLDER", help="Keeps embeddings and answers; the user's cache unless given."),
]
FreshOption = Annotated[bool, typer.Option("--fresh", help="Fit every router again, whatever is kept.")]

# minilm+surface did best for every predictor on held-out folds of the training rows of both shared data sets
TEXT, STATIC = "minilm+surface", "static+surface"
_NUMBERS_FROM = 1  # the first column of every table is a name


def evaluate(
    data: DataOption,
    prices: PricesOption,
    routers: RoutersOption = None,
    baselines: BaselinesOption = False,
    json: JsonFileOption = None,
    markdown: MarkdownOption = None,
    html: HtmlOption = None,
    picture: PictureOption = None,
    train_data: TrainDataOption = None,
    train_rows: TrainRowsOption = None,
    seed: SeedOption = 0,
    encoder: EncoderOption = TEXT,
    device: DeviceOption = "auto",
    cache: CacheOption = None,
    fresh: FreshOption = False,
) -> None:
    """Compare routers on recorded outcomes, without a single call.

    Questions are split by the hash of their id: three in ten are tested on, the others are learned from. Every router
    is charged what the models it chose really cost, and gets the quality they really had.
    """
    from eccos_core.evaluation.baselines import BASELINES, DEFAULT_ROUTERS, routers_named
    from eccos_core.evaluation.replay import ReplaySample
    from eccos_core.evaluation.replay import evaluate as replay
    from eccos_core.evaluation.result_cache import ResultCache
    from eccos_core.io.files import cache_folder
    from eccos_core.io.outcomes import read_outcomes, read_prices

    names = _names(routers) or [router.name for router in DEFAULT_ROUTERS]
    chosen = routers_named([*names, *([c.name for c in BASELINES] if baselines else [])])
    outcomes = read_outcomes(data)
    learned_from = read_outcomes(train_data) if train_data is not None else None
    price_table = read_prices(prices, (learned_from or outcomes).models)
    folder = cache or cache_folder()
    encoders = {
        reading: _encoder(encoder if reading == "text" else STATIC, device, folder / "embeddings.sqlite")
        for reading in dict.fromkeys(router.reads for router in chosen)
        if reading != "none"
    }
    with console().status("Reading ...") as status:

        def tell(stage: str, done: int, total: int) -> None:
            status.update(f"{stage}: {done:,} of {total:,}")

        report = replay(
            outcomes,
            price_table,
            chosen,
            {reading: remembering for reading, (remembering, _) in encoders.items()},
            timed={reading: bare for reading, (_, bare) in encoders.items()},
            dataset=data.name.removesuffix(".gz").removesuffix(".jsonl"),
            train=learned_from,
            sample=None if train_rows is None else ReplaySample(train_rows, seed),
            memory=None if fresh else ResultCache(folder / "answers"),
            progress=tell,
        )
    _write(report, json=json, markdown=markdown, html=html, picture=picture)
    if json != Path("-"):
        _print(report)


def _names(routers: Sequence[str] | None) -> list[str]:
    return [name.strip() for part in routers or () for name in part.split(",") if name.strip()]


def _encoder(name: str, device: str, cache: Path) -> tuple[Encoder, Encoder]:
    """An encoder that keeps on disk what is slow to encode, and the same one without that memory."""
    from eccos_core.encoders import (
        CachedEncoder,
        ConcatenatedEncoder,
        SentenceTransformerEncoder,
        StaticEncoder,
        SurfaceEncoder,
    )

    remembering: list[Encoder] = []
    bare: list[Encoder] = []
    for part in name.split("+"):
        match part.strip():
            case "static":
                bare.append(StaticEncoder())
            case "surface":
                bare.append(SurfaceEncoder())
            case other:
                bare.append(SentenceTransformerEncoder(other, device=device, intermediate_layer=True))
                remembering.append(CachedEncoder(bare[-1], cache))
                continue
        remembering.append(bare[-1])
    if len(bare) == 1:
        return remembering[0], bare[0]
    return ConcatenatedEncoder(remembering), ConcatenatedEncoder(bare)


def _write(
    report: EvaluationReport, *, json: Path | None, markdown: Path | None, html: Path | None, picture: Path | None
) -> None:
    if json == Path("-"):
        print_json(report.as_json())
    elif json is not None:
        report.write_json(json)
    if markdown is not None:
        report.write_markdown(markdown)
    if html is not None:
        from eccos_core.evaluation.html import write_html

        write_html(report, html)
    if picture is not None:
        from eccos_core.evaluation.plots import report_picture

        report_picture(report, picture)


def _print(report: EvaluationReport) -> None:
    from rich.text import Text

    from eccos_core.evaluation.report import (
        FORECAST_HEADER,
        FRONTIER_HEADER,
        LATENCY_HEADER,
        forecast_row,
        frontier_row,
        latency_row,
    )

    out = console(sys.stdout)
    results = list(report.results.values())
    best = report.best_single
    out.print(
        Text.assemble(
            (report.dataset, "bold"),
            f": {report.train:,} training and {report.test:,} test questions, {len(report.models)} models. "
            f"Best single model: {best.model}, accuracy {best.accuracy:.3f}, "
            f"{1000 * best.usd_per_question:.4g} USD per 1,000 questions.",
        ),
        soft_wrap=True,
    )
    rows = [frontier_row(result) for result in results]
    title = "Cost to reach a share of the best single model's accuracy, as a share of its cost"
    out.print(table(title, FRONTIER_HEADER, rows, numbers=FRONTIER_HEADER[_NUMBERS_FROM:]))
    rows = [forecast_row(result) for result in results if result.calibration is not None]
    if rows:
        out.print(table("Forecasts", FORECAST_HEADER, rows, numbers=FORECAST_HEADER[_NUMBERS_FROM:]))
    rows = [latency_row(result) for result in results if result.latency is not None]
    if rows:
        out.print(table("Latency, without encoding", LATENCY_HEADER, rows, numbers=LATENCY_HEADER[_NUMBERS_FROM:]))
    for role, facts in report.encoders.items():
        out.print(f"Encoder '{role}' ({facts.name}): {facts.encode_ms:.2f} ms a question", soft_wrap=True)
    for note in report.notes:
        out.print(f"Note: {note}", soft_wrap=True)
