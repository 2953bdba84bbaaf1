"""Options that several commands share, so that an option means the same everywhere."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from eccos_core.cli.output import console
from eccos_core.errors import InputError
from eccos_core.io.durations import read_seconds

DataOption = Annotated[
    Path,
    typer.Option("--data", metavar="OUTCOMES", help="The outcomes file with the recorded answers (.jsonl, .jsonl.gz)."),
]
SeedOption = Annotated[
    int,
    typer.Option(
        "--seed", metavar="N", min=0, help="The seed of every random draw. The same seed gives the same result."
    ),
]

SinceOption = Annotated[
    str | None,
    typer.Option(
        "--since",
        metavar="WHEN",
        help="Take only decisions since 30m, 12h or 7d ago, or since a date such as 2026-11-23.",
    ),
]
PictureOption = Annotated[
    Path | None,
    typer.Option("--picture", metavar="FILE", help="Draw a picture (.png, .svg or .pdf)."),
]

PatienceOption = Annotated[
    str | None,
    typer.Option(
        "--patience",
        metavar="TIME",
        help="How long answers may take, such as 24h. Then batch APIs of providers are used where they pay.",
    ),
]


def read_patience(text: str | None) -> float | None:
    """Read --patience. Raises `InputError` for what is no time."""
    if text is None:
        return None
    seconds = read_seconds(text)
    if not seconds:
        raise InputError(f"--patience is {text!r}, must be a time such as 24h, 90m or 2d")
    return seconds


def split_names(values: Iterable[str] | None) -> list[str]:
    """Return the names of a list option. You can repeat the option and separate names by commas."""
    return [name.strip() for value in values or () for name in value.split(",") if name.strip()]


def resolve_config(config: Path | None) -> Path:
    """Return the configuration file: the given one, else `eccos.yaml` in this folder, else the bundled pocket pool.

    Says on standard error which file is used when none was given.
    """
    if config is not None:
        return config
    found = usual_config()
    console().print(f"Using {found}", style="dim", soft_wrap=True)
    return found


def usual_config() -> Path:
    """Return `eccos.yaml` in this folder, or else the bundled pocket pool."""
    from eccos_core.pocket import pool_config_path

    here = Path("eccos.yaml")
    return here if here.exists() else pool_config_path()
