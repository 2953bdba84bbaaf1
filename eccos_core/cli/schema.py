"""`eccos schema`: the JSON schema of the configuration file, for editors."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from eccos_core.cli.output import JsonOption, console, print_json

OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Write the schema to FILE, in one step.", dir_okay=False)
]


def schema(out: OutOption = None, json: JsonOption = False) -> None:
    """Print the JSON schema of the configuration file, or write it to a file.

    Your editor completes and checks the YAML with it. Write this line at the top of your file:
    `# yaml-language-server: $schema=eccos.schema.json`
    """
    from eccos_core.config.json_schema import render_schema
    from eccos_core.errors import InputError
    from eccos_core.io.files import atomic_writer

    text = render_schema()
    if out is None:
        sys.stdout.write(text)
        return
    try:
        with atomic_writer(out) as stream:
            stream.write(text.encode())
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror or error})") from error
    if json:
        print_json({"file": str(out)})
    else:
        console().print(f"Wrote {out}.", soft_wrap=True)
