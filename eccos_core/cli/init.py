"""`eccos init`: write a first configuration from three answers, check it, and call each model once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eccos_core.cli.check import check
from eccos_core.cli.options import split_names
from eccos_core.cli.output import JsonOption, console
from eccos_core.errors import InputError, did_you_mean

ModelsOption = Annotated[
    list[str] | None,
    typer.Option("--models", metavar="NAMES", help="The models, as LiteLLM names them, separated by commas."),
]
AtOption = Annotated[
    str | None,
    typer.Option("--at", metavar="WHERE", help="`providers`, or the URL of an OpenAI-compatible server."),
]
PriorityOption = Annotated[
    str | None, typer.Option("--priority", metavar="WHAT", help="What matters: money, balance or answers.")
]
FromOption = Annotated[
    Path | None,
    typer.Option("--from", metavar="FILE", help="A LiteLLM file whose models to use. It stays as it is."),
]
OutOption = Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The file to write.", dir_okay=False)]
KeyOption = Annotated[
    str | None,
    typer.Option("--key-variable", metavar="NAME", help="The environment variable that holds the key. Never the key."),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing. What you leave out gets its default.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")]
ProbeOption = Annotated[bool, typer.Option("--probe/--no-probe", help="Call each model once with a one-token prompt.")]


def init(
    models: ModelsOption = None,
    at: AtOption = None,
    priority: PriorityOption = None,
    source: FromOption = None,
    out: OutOption = Path("eccos.yaml"),
    key_variable: KeyOption = None,
    yes: YesOption = False,
    overwrite: OverwriteOption = False,
    probe: ProbeOption = True,
    json: JsonOption = False,
) -> None:
    """Write your first configuration: which models, where they are, and what matters.

    You are asked for what you leave out. The file is checked, and each model is called once.
    No key is ever written, only the name of the variable that holds it.
    """
    from eccos_core.workflows.starter_config import PRIORITIES, PROVIDERS, StarterPool, write_starter_config

    if source is not None and (models or at or key_variable):
        raise InputError("--from takes the models of a file. Leave out --models, --at and --key-variable.")
    if out.exists() and not (overwrite or yes):
        overwrite = typer.confirm(f"{out} exists. Overwrite it?", abort=True, err=True)
    pool: StarterPool | Path
    if source is not None:
        pool = source
    else:
        names = split_names(models) or split_names(
            [_ask("Which models? Separate them by commas", None, yes, "--models")]
        )
        where = at or _ask("Where are they? `providers`, or the URL of your server", PROVIDERS, yes, "--at")
        pool = StarterPool(tuple(names), where, key_variable)
    matters = priority or _ask(f"What matters most? {', '.join(PRIORITIES)}", "balance", yes, "--priority")
    if matters not in PRIORITIES:
        meant = did_you_mean(matters, PRIORITIES)
        raise InputError(f"what matters is {matters!r}, must be one of {', '.join(PRIORITIES)}{meant}")
    write_starter_config(out, pool, matters, overwrite=overwrite)
    console().print(f"Wrote {out}. Next: eccos ask -c {out} QUESTION", soft_wrap=True)
    check(out, probe=probe, json=json)


def _ask(question: str, default: str | None, yes: bool, option: str) -> str:
    """Ask, or take the default when nothing may be asked. Raises `InputError` where there is none."""
    if not yes:
        return str(typer.prompt(question, default=default, err=True)).strip()
    if default is None:
        raise InputError(f"{option} is missing, and --yes asks nothing. Give {option}.")
    return default
