"""`eccos convert`: turn published results into an outcomes file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eccos_core.cli.output import JsonOption, console, print_json


def convert(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="The published file or folder.")],
    outcomes: Annotated[Path, typer.Argument(metavar="OUTCOMES", help="The outcomes file to write.")],
    layout: Annotated[
        str,
        typer.Option("--from", metavar="LAYOUT", help="csv, llmrouterbench, routellm, routerbench or sprout."),
    ] = "csv",
    json: JsonOption = False,
) -> None:
    """Turn the results that others publish into an outcomes file.

    You can then fit, evaluate and certify on them.

    Example: eccos convert routerbench_0shot.csv outcomes.jsonl.gz --from routerbench
    """
    from eccos_core.io.outcomes import write_outcomes
    from eccos_core.io.published import read_published

    table = read_published(source, layout)
    write_outcomes(outcomes, table)
    if json:
        print_json({"outcomes": str(outcomes), "questions": len(table), "models": list(table.models)})
    else:
        console().print(f"{outcomes}: {len(table):,} questions, {len(table.models)} models", soft_wrap=True)
