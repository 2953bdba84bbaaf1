"""`eccos evaluate`: compare routers on recorded answers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eccos_core.cli.evaluate_online import (
    OnlineOption,
    OnlineOptions,
    SeedsOption,
    UsdPerQualityOption,
    WarmOption,
    evaluate_online,
)
from eccos_core.cli.options import DataOption, SeedOption, split_names
from eccos_core.cli.output import console, print_json, table
from eccos_core.errors import InputError
from eccos_core.io.optional import require_package

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
    bool,
    typer.Option(
        "--baselines", help="Add routers from the literature: RouteLLM, Avengers-Pro, IRT, ... Each tunes itself."
    ),
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
    Path | None,
    typer.Option("--picture", metavar="FILE", help="Write a picture of accuracy over cost (.png, .svg, .pdf)."),
]
TrainDataOption = Annotated[
    Path | None,
    typer.Option("--train-data", metavar="OUTCOMES", help="Train on this file and test on all of --data."),
]
TrainRowsOption = Annotated[
    int | None,
    typer.Option("--train-rows", min=1, metavar="N", help="Train on N of the training questions, drawn by --seed."),
]
SplitByOption = Annotated[
    str | None,
    typer.Option(
        "--split-by",
        metavar="LABEL",
        help="Leave one group out: test each dataset (or another label) by routers that never saw it.",
    ),
]
PricesOption = Annotated[
    Path | None,
    typer.Option("--prices", metavar="PRICES", help="USD per token of each model. Leave it out if costs are recorded."),
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


def evaluate(
    data: DataOption,
    prices: PricesOption = None,
    routers: RoutersOption = None,
    baselines: BaselinesOption = False,
    json: JsonFileOption = None,
    markdown: MarkdownOption = None,
    html: HtmlOption = None,
    picture: PictureOption = None,
    train_data: TrainDataOption = None,
    train_rows: TrainRowsOption = None,
    split_by: SplitByOption = None,
    seed: SeedOption = 0,
    encoder: EncoderOption = TEXT,
    device: DeviceOption = "auto",
    cache: CacheOption = None,
    fresh: FreshOption = False,
    online: OnlineOption = False,
    warm: WarmOption = 0,
    usd_per_quality: UsdPerQualityOption = 0.05,
    seeds: SeedsOption = 5,
) -> None:
    """Compare routers on recorded answers, without calling a model.

    You get a table of what each router costs and how accurate it is, beside every single model.

    The questions are split by the hash of their id. Three in ten are tests, and the routers train on the others.

    Each router pays the recorded cost of the models it chooses and gets their recorded quality. "No difference" means
    that your test questions cannot tell two routers apart.

    With the default encoder, the first run reads about ten questions a second. --encoder static+surface takes seconds.

    With --online, each question comes once, and a policy sees the outcome of its own choice alone. --routers then names
    policies: eccos, eccos_greedy, paretobandit, ...

    Example: eccos evaluate --data outcomes.jsonl --prices prices.json --baselines --html report.html

    Example: eccos evaluate --online --data outcomes.jsonl --prices prices.json --warm 300 --usd-per-quality 0.05
    """
    from eccos_core.evaluation.baselines import routers_by_name, usual_routers
    from eccos_core.evaluation.result_cache import ResultCache
    from eccos_core.io.files import cache_folder
    from eccos_core.io.outcomes import read_outcomes
    from eccos_core.io.prices import read_prices

    folder = cache or cache_folder()
    if online:
        policies = tuple(split_names(routers)) or None
        evaluate_online(
            OnlineOptions(data, prices, policies, warm, usd_per_quality, seeds, json),
            lambda: _encoder(encoder, device, folder / "embeddings.sqlite")[0],
        )
        return
    named = split_names(routers)
    routers_by_name(named)  # a misspelt name is told before anything is read
    _check_outputs(html, picture)
    with console().status("Reading outcomes ...") as status:
        from eccos_core.evaluation.replay import ReplaySample
        from eccos_core.evaluation.replay import evaluate as replay

        outcomes = read_outcomes(data)
        train_outcomes = read_outcomes(train_data) if train_data is not None else None
        chosen = routers_by_name(usual_routers(outcomes, named, baselines=baselines))
        price_table = read_prices(prices) if prices is not None else {}
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
            split_by=split_by,
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


def _check_outputs(html: Path | None, picture: Path | None) -> None:
    """Find out before the routers are fitted whether the files can be written."""
    if html is not None:
        require_package("plotly", "report", "an HTML report")
    if picture is not None:
        from eccos_core.evaluation.plots import check_picture

        check_picture(picture)


def _encoder(name: str, device: str, cache: Path) -> tuple[Encoder, Encoder]:
    """Return an encoder that caches slow encodings on disk, and the same one without a cache."""
    from eccos_core.encoders import (
        CachedEncoder,
        ConcatenatedEncoder,
        SentenceTransformerEncoder,
        StaticEncoder,
        SurfaceEncoder,
    )

    if not all(part.strip() for part in name.split("+")):
        raise InputError(f"the encoder {name!r} lacks a name. Join names with '+', for example static+surface.")
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
        from eccos_core.evaluation.report_tables import write_markdown

        write_markdown(report, markdown)
    if html is not None:
        from eccos_core.evaluation.html import write_html

        write_html(report, html)
    if picture is not None:
        from eccos_core.evaluation.plots import draw_report

        draw_report(report, picture)


def _print(report: EvaluationReport) -> None:
    from rich.text import Text

    from eccos_core.evaluation.report_tables import report_tables, summary

    out = console(sys.stdout)
    out.print(Text.assemble((report.dataset, "bold"), f": {summary(report)}"), soft_wrap=True)
    for each in report_tables(report):
        out.print(table(each.title, each.header, each.rows, numbers=each.header[1:]))
        out.print(Text(each.explanation, "dim"), soft_wrap=True)
    for note in report.notes:
        out.print(f"Note: {note}", soft_wrap=True)
