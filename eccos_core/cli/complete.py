"""`eccos complete` answers a file of requests. `eccos batches` shows and cancels what runs at providers."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from eccos_core.cli.options import PatienceOption, read_patience, resolve_config
from eccos_core.cli.output import JsonOption, console, print_json, table
from eccos_core.cli.plan import RequestsOption
from eccos_core.cli.route import PoolOption, router_of
from eccos_core.cli.stage_bars import stage_bars

_STAGES = {"check": "Reading the requests", "answer": "Answering"}
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="ANSWERS",
        help="The file to write, one answer per request, in order: .jsonl or .parquet.",
    ),
]
FolderOption = Annotated[
    Path | None,
    typer.Option("--output", metavar="FOLDER", help="Write Parquet here instead, one file for each part."),
]
PartRowsOption = Annotated[
    int, typer.Option("--shard-rows", help="Requests of one part, which are decided and answered together.", min=1)
]
KeepFailedOption = Annotated[
    bool, typer.Option("--keep-failed", help="Let requests that failed in an earlier run be, with their errors.")
]
CancelOption = Annotated[
    str | None, typer.Option("--cancel", metavar="BATCH", help="Cancel this batch, by its id in the list.")
]


def complete(
    requests: RequestsOption,
    out: OutOption = None,
    output: FolderOption = None,
    config: PoolOption = None,
    patience: PatienceOption = None,
    shard_rows: PartRowsOption = 4_096,
    keep_failed: KeepFailedOption = False,
    json: JsonOption = False,
) -> None:
    """Answer a file of requests, assigned jointly under your policy.

    A long file is answered in parts. If the command is killed, run it again: it repeats no finished part.
    Requests that failed are asked again, unless you add --keep-failed.

    Example: eccos complete --requests requests.jsonl --out answers.jsonl

    With --patience, batch APIs of providers are used where they pay. The file is then one part.

    Example: eccos complete --requests requests.jsonl --out answers.jsonl --patience 24h
    """
    from eccos_core.errors import InputError
    from eccos_core.routing.decisions import format_usd
    from eccos_core.workflows.complete import FileAnswers

    if out is not None and output is not None:
        raise InputError("--out names a file and --output a folder. Keep one")
    place = out or output
    if place is None:
        raise InputError("name a file for the answers with --out, or a folder with --output")
    as_parquet = out is None or out.suffix == ".parquet"
    patience_s = read_patience(patience)
    with router_of(config, for_calls=True) as router, stage_bars(_STAGES) as bars:
        note = console()
        answers = FileAnswers(
            requests,
            place.with_name(f"{place.name}.parts") if out is not None else place,
            part_rows=shard_rows if patience_s is None else None,
            as_parquet=as_parquet,
            keep_failed=keep_failed,
            progress=bars,
        )
        found = answers.run(
            router,
            patience_s=patience_s,
            report=lambda said: note.print(said, style="dim", soft_wrap=True, markup=False),
        )
        if out is not None:
            answers.join(out)
    if json:
        print_json({**asdict(found), "out": str(place)})
    else:
        failed = f", {found.failed:,} failed" if found.failed else ""
        before = f", {found.answered_before:,} of them by an earlier run" if found.answered_before else ""
        said = f"{found.answered:,} of {found.requests:,} requests answered for {format_usd(found.cost_usd)}"
        again = f", {found.asked_again:,} asked again" if found.asked_again else ""
        console(sys.stdout).print(f"{said}{failed}{before}{again}: {place}", soft_wrap=True, markup=False)
        if found.failed and not keep_failed:
            console(sys.stdout).print(
                f"Run the same command again to ask the {found.failed:,} that failed, and no other.", soft_wrap=True
            )


def batches(config: PoolOption = None, cancel: CancelOption = None, json: JsonOption = False) -> None:
    """List the batches that run at providers, and cancel one.

    Example: eccos batches --cancel batch_68f0
    """
    from eccos_core.assembly.provider_batches import build_provider_batches
    from eccos_core.config import load_config
    from eccos_core.errors import InputError

    path = resolve_config(config)
    provider = build_provider_batches(load_config(path))
    if provider is None:
        raise InputError(f"{path}: no model has `batch` in its model_info, so nothing runs at a provider")
    if cancel is not None:
        record = provider.cancel(cancel)
        console().print(f"Cancelled {record.provider_id or record.id}", soft_wrap=True, markup=False)
    rows = [
        {
            "id": record.provider_id or record.id,
            "model": record.model,
            "requests": len(record.rows),
            "submitted": bool(record.provider_id),
            "age_s": round(time.time() - record.created_at, 1),
            "patience_left_s": round(record.patient_until - time.time(), 1),
        }
        for record in provider.folder.records()
    ]
    if json:
        print_json({"folder": str(provider.folder.path), "batches": rows})
        return
    columns = ("id", "model", "requests", "submitted", "age_s", "patience_left_s")
    cells = [[str(row[column]) for column in columns] for row in rows]
    title = f"{len(rows)} batches in {provider.folder.path}"
    console(sys.stdout).print(table(title, columns, cells, numbers=("requests", "age_s", "patience_left_s")))
