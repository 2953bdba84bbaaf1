"""`eccos price`: what a token of a model costs on a GPU of your own, by the length of its context."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eccos_core.cli.output import JsonOption, console, print_json, print_table
from eccos_core.errors import InputError

if TYPE_CHECKING:
    from eccos_core.roofline import TokenPrice

_CONTEXTS = "1k,8k,32k"
_COLUMNS = ("context", "batch", "in", "out", "in/s", "out/s")

ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="A Hugging Face folder, a pocket model, or a name such as llama-3-8b.")
]
GpuOption = Annotated[str, typer.Option("--gpu", metavar="GPU", help="The kind of GPU, such as h100. `this`: here.")]
GpusOption = Annotated[int, typer.Option("--gpus", min=1, metavar="N", help="The GPUs that share one model.")]
ContextOption = Annotated[
    str, typer.Option("--context", metavar="TOKENS", help="Context lengths, such as 32k. Separate several by commas.")
]
BatchOption = Annotated[
    int | None,
    typer.Option("--batch", min=1, metavar="N", help="Requests that decode together. Default: what fits, at most 256."),
]
HourOption = Annotated[
    float | None, typer.Option("--usd-per-hour", min=0.0, metavar="USD", help="What one GPU costs an hour.")
]
CalibrateOption = Annotated[
    bool, typer.Option("--calibrate", help="With `--gpu this`: measure this machine first, for some seconds.")
]


def price(
    model: ModelArgument,
    gpu: GpuOption,
    usd_per_hour: HourOption = None,
    context: ContextOption = _CONTEXTS,
    gpus: GpusOption = 1,
    batch: BatchOption = None,
    calibrate: CalibrateOption = False,
    json: JsonOption = False,
) -> None:
    """Price a token of a model on a GPU of your own, by the length of its context.

    You get USD per million tokens, and how many tokens a second makes. Without --usd-per-hour an hour costs 1 USD.

    Example: eccos price models/llama-3-8b --gpu h100 --context 1k,32k --usd-per-hour 2.50
    """
    from eccos_core.roofline import THIS, price_tokens, serve_model

    contexts = [parse_tokens(each) for each in context.split(",")]
    where = _folder(model)
    if calibrate:
        if gpu != THIS:
            raise InputError(f"--calibrate measures this machine, and --gpu is {gpu!r}. Use --gpu this.")
        _calibrate(where)
    hour = 1.0 if usd_per_hour is None else usd_per_hour
    served = serve_model(where, gpu, usd_per_gpu_hour=hour, gpus=gpus, batch=batch)
    prices = [price_tokens(served, each) for each in contexts]
    if json:
        print_json(
            {"model": served.name, "gpu": gpu, "gpus": gpus, "usd_per_hour": hour * gpus, "prices": _rows(prices)}
        )
        return
    title = f"{served.name} on {gpus} x {gpu} at {hour:g} USD an hour each, USD per million tokens"
    lines = [
        (
            f"{each.context:,}",
            f"{each.batch:,}",
            f"{each.usd_per_input_token * 1e6:.4g}",
            f"{each.usd_per_output_token * 1e6:.4g}",
            f"{each.input_tokens_per_s:,.0f}",
            f"{each.output_tokens_per_s:,.0f}",
        )
        for each in prices
    ]
    print_table(console(sys.stdout), title, _COLUMNS, lines, numbers=_COLUMNS)


def _rows(prices: list[TokenPrice]) -> list[dict[str, float]]:
    return [asdict(each) for each in prices]


def _folder(model: str) -> str:
    """The folder of a pocket model's name; other words stay as they are."""
    from eccos_core.pocket import pocket_names, pocket_path

    return str(pocket_path(model)) if model in pocket_names() else model


def _calibrate(folder: str) -> None:
    from eccos_core.backends.local.measure_speed import calibrate
    from eccos_core.roofline import read_machine, write_machine
    from eccos_core.roofline.machine import machine_file

    if not (Path(folder) / "config.json").is_file():
        raise InputError(f"--calibrate runs the model, and {folder!r} is no folder with a config.json")
    with console().status("Measuring this machine ..."):
        measured = calibrate(Path(folder).resolve())
    if machine_file().is_file():
        measured = read_machine().add(measured)
    console().print(f"Kept in {write_machine(measured)}", soft_wrap=True)


def parse_tokens(text: str) -> int:
    """Read a number of tokens: 32768, 32k (x 1,024) or 1m. Raises `InputError`."""
    found = re.fullmatch(r"\s*(\d+)\s*([kKmM]?)\s*", text)
    if found is None or int(found[1]) == 0:
        raise InputError(f"--context is {text!r}, must be tokens such as 4096 or 32k")
    return int(found[1]) * {"": 1, "k": 1024, "m": 1024**2}[found[2].lower()]
