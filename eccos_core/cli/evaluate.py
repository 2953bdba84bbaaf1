"""`eccos evaluate`: compare routers on recorded answers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eccos_core.cli.options import DataOption, PricesOption, SeedOption, split_names
from eccos_core.cli.output import console, print_json, table

if TYPE_CHECKING:
    from eccos_core.evaluation.report import EvaluationReport
    from eccos_core.protocols import Encoder

RoutersOption = Annotated[
    list[str] | None,
    typer.Option(
        "--routers",
        metavar="NAMES",
        help="The routers to compare, instead of the usual ones. Repeat it, or separate names by commas.",
    ),
]
BaselinesOption = Annotated[
    bool, typer.Option("--baselines", help="Add routers from the literature: AIOS, RouteLLM, Avengers-Pro, PORT, ...")
]
JsonFileOption = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the report to this file as JSON. - prints it.")
]
MarkdownOption = Annotated[
    Path | None, typer.Option("--markdown", metavar="FILE", help="Write the tables to this file as Markdown.")
]
HtmlOption = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Write one HTML page with interactive plots.")
]
PictureOption = Annotated[
    Path | None, typer.Option("--picture", metavar="PNG", help="Write a picture of accuracy over cost.")
]
TrainDataOption = Annotated[
    Path | None,
    typer.Option("--train-data", metavar="OUTCOMES", help="Train on this file and test on all of --data."),
]
TrainRowsOption = Annotated[
    int | None,
    typer.Option("--train-rows", min=1, metavar="N", help="Train on N of the training questions, drawn by --seed."),
]
EncoderOption = Annotated[
    str,
    typer.Option(
        "--encoder",
        metavar="NAME",
        help="minilm, static, surface, or a sentence-transformers folder or name. Join several with '+'.",
    ),
]
DeviceOption = Annotated[
    str, typer.Option("--device", metavar="DEVICE", help="Where the encoder runs: auto, cpu or cuda.")
]
CacheOption = Annotated[
    Path | None,
    typer.Option(
        "--cache", metavar="FOLDER", help="The folder that keeps embeddings and results. Default: your user cache."
    ),
]
FreshOption = Annotated[bool, typer.Option("--fresh", help="Fit every router again instead of using kept results.")]

# minilm+surface was the best for every predictor on held-out folds of the training rows of both shared data sets
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
    """Compare routers on recorded answers, without calling a model.

    You get a table of what each router costs and how accurate it is, beside every single model.

    The questions are split by the hash of their id. Three in ten are tests, and the routers train on the others. Each
    router pays the recorded cost of the models it chooses and gets their recorded quality.

    Example: eccos evaluate --data outcomes.jsonl --prices prices.json --baselines --html report.html
    """
    from eccos_core.evaluation.baselines import BASELINES, DEFAULT_ROUTERS, routers_by_name
    from eccos_core.evaluation.result_cache import ResultCache
    from eccos_core.io.files import cache_folder
    from eccos_core.io.outcomes import read_outcomes, read_prices

    names = split_names(routers) or [router.name for router in DEFAULT_ROUTERS]
    chosen = routers_by_name([*names, *([router.name for router in BASELINES] if baselines else [])])
    folder = cache or cache_folder()
    with console().status("Reading outcomes ...") as status:
        from eccos_core.evaluation.replay import ReplaySample
        from eccos_core.evaluation.replay import evaluate as replay

        outcomes = read_outcomes(data)
        train_outcomes = read_outcomes(train_data) if train_data is not None else None
        price_table = read_prices(prices, (train_outcomes or outcomes).models)
        status.update("Loading the encoder ...")
        encoders = {
            reading: _encoder(encoder if reading == "text" else STATIC, device, folder / "embeddings.sqlite")
            for reading in dict.fromkeys(router.reads for router in chosen)
            if reading != "none"
        }
        report = replay(
            outcomes,
            price_table,
            chosen,
            {reading: cached for reading, (cached, _) in encoders.items()},
            uncached_encoders={reading: uncached for reading, (_, uncached) in encoders.items()},
            dataset=data.name.removesuffix(".gz").removesuffix(".jsonl"),
            train=train_outcomes,
            sample=None if train_rows is None else ReplaySample(train_rows, seed),
            cache=None if fresh else ResultCache(folder / "answers"),
            progress=lambda stage, done, total: status.update(f"{stage}: {done:,} of {total:,}"),
        )
        status.update("Writing the report ...")
        _write(report, json=json, markdown=markdown, html=html, picture=picture)
    if json == Path("-"):
        print_json(report.as_json())
    else:
        _print(report)


def _encoder(name: str, device: str, cache: Path) -> tuple[Encoder, Encoder]:
    """Return an encoder that caches slow encodings on disk, and the same one without a cache."""
    from eccos_core.encoders import (
        CachedEncoder,
        ConcatenatedEncoder,
        SentenceTransformerEncoder,
        StaticEncoder,
        SurfaceEncoder,
    )

    cached: list[Encoder] = []
    uncached: list[Encoder] = []
    for part in name.split("+"):
        match part.strip():
            case "static":
                uncached.append(StaticEncoder())
            case "surface":
                uncached.append(SurfaceEncoder())
            case other:
                uncached.append(SentenceTransformerEncoder(other, device=device, intermediate_layer=True))
                cached.append(CachedEncoder(uncached[-1], cache))
                continue
        cached.append(uncached[-1])
    if len(uncached) == 1:
        return cached[0], uncached[0]
    return ConcatenatedEncoder(cached), ConcatenatedEncoder(uncached)


def _write(
    report: EvaluationReport, *, json: Path | None, markdown: Path | None, html: Path | None, picture: Path | None
) -> None:
    if json is not None and json != Path("-"):
        report.write_json(json)
    if markdown is not None:
        report.write_markdown(markdown)
    if html is not None:
        from eccos_core.evaluation.html import write_html

        write_html(report, html)
    if picture is not None:
        from eccos_core.evaluation.plots import draw_report

        draw_report(report, picture)


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
    title = "Cost to reach a share of the best single model's accuracy (as a share of its cost)"
    out.print(table(title, FRONTIER_HEADER, rows, numbers=FRONTIER_HEADER[_NUMBERS_FROM:]))
    rows = [forecast_row(result) for result in results if result.calibration is not None]
    if rows:
        out.print(table("Forecasts", FORECAST_HEADER, rows, numbers=FORECAST_HEADER[_NUMBERS_FROM:]))
    rows = [latency_row(result) for result in results if result.latency is not None]
    if rows:
        out.print(table("Latency without encoding", LATENCY_HEADER, rows, numbers=LATENCY_HEADER[_NUMBERS_FROM:]))
    for role, facts in report.encoders.items():
        out.print(f"Encoder '{role}' ({facts.name}): {facts.encode_ms:.2f} ms per question", soft_wrap=True)
    for note in report.notes:
        out.print(f"Note: {note}", soft_wrap=True)
