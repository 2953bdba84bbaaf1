"""`eccos calibrate`: measure a server with a few requests, for `eccos simulate --engine costs=FILE`."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from eccos_core.cli.output import JsonOption, console, print_json
from eccos_core.errors import InputError

POOR_FIT = 0.3  # median error above which a simulation is not to be trusted

UrlArgument = Annotated[
    str, typer.Argument(metavar="URL", help="The server's address, up to /v1. It speaks OpenAI's API.")
]
ServedModelOption = Annotated[str, typer.Option("--model", metavar="NAME", help="The model's name on the server.")]
SaveOption = Annotated[Path, typer.Option("--save", metavar="FILE", help="Where to write the costs, as JSON.")]
KeyVariableOption = Annotated[
    str | None,
    typer.Option("--api-key-env", metavar="NAME", help="The environment variable that holds the server's key."),
]

LongestOption = Annotated[
    int,
    typer.Option("--longest", metavar="WORDS", help="The words of the longest prompt. A word is one to three tokens."),
]


def calibrate(
    url: UrlArgument,
    model: ServedModelOption,
    save: SaveOption = Path("costs.json"),
    api_key_env: KeyVariableOption = None,
    longest: LongestOption = 2048,
    json: JsonOption = False,
) -> None:
    """Measure your own server, so that you can simulate it.

    It asks for 43 short answers: prompts of four lengths, and up to 16 requests at once. Do it while nobody else asks.
    You get the seconds that a pass starts with, and those of each token read and generated.

    Example: eccos calibrate http://127.0.0.1:8000/v1 --model llama --save costs.json
    """
    from eccos_core.simulation.serving.calibration import fit_server, measure_server, write_calibration

    key = os.environ.get(api_key_env) if api_key_env else None
    if api_key_env and not key:
        raise InputError(f"--api-key-env is {api_key_env}, but that environment variable is not set")
    with console().status("Measuring the server ..."):
        found = fit_server(model, measure_server(url, model, key, longest))
    write_calibration(save, found)
    if json:
        print_json(asdict(found))
        return
    cost = found.cost
    typer.echo(
        f"A pass takes {1e3 * cost.start_s:.2f} ms, and for each token read {1e6 * cost.prefill_token_s:.1f} µs, each "
        f"token generated {1e6 * cost.decode_s:.1f} µs, each cached token {1e9 * cost.context_token_s:.1f} ns."
    )
    typer.echo(
        f"The fit is off by {100 * found.first_token_error:.0f} % on first tokens and {100 * found.token_error:.0f} % "
        f"on the others (median of {found.measurements} requests). Written to {save}."
    )
    if max(found.first_token_error, found.token_error) > POOR_FIT:
        typer.echo("The fit is poor. Calibrate again while nobody else asks, and with a model that writes 48 tokens.")
