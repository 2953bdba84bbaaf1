"""`eccos ingest`: add recorded outcomes to the history."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from eccos_core.cli.options import resolve_config
from eccos_core.cli.output import JsonOption, console, print_json
from eccos_core.cli.route import PoolOption

OutcomesArgument = Annotated[
    Path, typer.Argument(metavar="OUTCOMES", help="The outcomes file to add (.jsonl, .jsonl.gz).")
]


def ingest(outcomes: OutcomesArgument, config: PoolOption = None, json: JsonOption = False) -> None:
    """Add recorded outcomes to the history.

    You can ingest the same file again. That changes nothing. The configuration must keep its history on disk or on a
    server: a history in memory would be gone when the command ends.

    Example: eccos ingest outcomes.jsonl --config eccos.yaml
    """
    from eccos_core.assembly.encoder import build_encoder
    from eccos_core.assembly.history import build_history
    from eccos_core.config import InMemoryConfig, load_config
    from eccos_core.errors import InputError
    from eccos_core.history.ingest import ingest as ingest_file
    from eccos_core.io.outcomes import read_outcomes
    from eccos_core.io.prices import describe_contradicting_costs

    loaded = load_config(resolve_config(config))
    outcomes_table = read_outcomes(outcomes)
    if isinstance(loaded.history, InMemoryConfig):
        raise InputError(
            f"{loaded.path}: eccos.history is in memory, so the outcomes would be gone when this command ends. "
            "Set eccos.history: {path: FOLDER}, or name another configuration with --config."
        )
    with console().status("Loading the encoder ...") as status:
        encoder = build_encoder(loaded.encoder, loaded.conversation)
        report = ingest_file(
            outcomes_table,
            build_history(loaded.history, encoder),
            encoder,
            progress=lambda done, total: status.update(f"Encoding and storing: {done:,} of {total:,} questions"),
        )
    prices = {model.name: (model.usd_per_input_token, model.usd_per_output_token) for model in loaded.models}
    warnings = describe_contradicting_costs(outcomes_table, prices)
    for warning in warnings:
        console().print(f"warning: {warning}", style="yellow", soft_wrap=True)
    if json:
        print_json(
            {"questions": report.questions, "outcomes": report.outcomes, "new": report.new, "warnings": warnings}
        )
    else:
        console(sys.stdout).print(
            f"{report.questions} questions, {report.outcomes} outcomes, {report.new} of them new", soft_wrap=True
        )
