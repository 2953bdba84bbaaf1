"""`eccos complete` answers a file of requests. `eccos batches` shows and cancels what runs at providers."""

from __future__ import annotations

import json as json_text
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eccos_core.cli.options import PatienceOption, read_patience, resolve_config
from eccos_core.cli.output import JsonOption, console, print_json, table
from eccos_core.cli.plan import RequestsOption
from eccos_core.cli.route import PoolOption, router_of

if TYPE_CHECKING:
    from eccos_core.domain import Completion, Request
    from eccos_core.errors import EccosError

OutOption = Annotated[
    Path,
    typer.Option("--out", "-o", metavar="ANSWERS", help="The file to write: one JSON object per request, in order."),
]
CancelOption = Annotated[
    str | None, typer.Option("--cancel", metavar="BATCH", help="Cancel this batch, by its id in the list.")
]


def complete(
    requests: RequestsOption,
    out: OutOption,
    config: PoolOption = None,
    patience: PatienceOption = None,
    json: JsonOption = False,
) -> None:
    """Answer a file of requests, assigned jointly under your policy.

    With --patience, batch APIs of providers are used where they pay. If the command is killed, run it again: it finds
    its batches.

    Example: eccos complete --requests requests.jsonl --out answers.jsonl --patience 24h
    """
    from eccos_core.domain import Completion
    from eccos_core.io.files import atomic_writer
    from eccos_core.routing.decisions import format_usd
    from eccos_core.workflows.plan import read_requests

    batch, patience_s = read_requests(requests), read_patience(patience)
    with router_of(config, for_calls=True) as router:
        note = console()
        with note.status(f"Asking {len(batch):,} requests ..."):
            results = router.complete_batch(
                batch,
                return_exceptions=True,
                patience_s=patience_s,
                report=lambda said: note.print(said, style="dim", soft_wrap=True, markup=False),
            )
        with atomic_writer(out) as stream:
            for request, result in zip(batch, results, strict=True):
                stream.write(json_text.dumps(_line(request, result), ensure_ascii=False).encode() + b"\n")
    answers = [each for each in results if isinstance(each, Completion)]
    usd = sum(each.cost_usd for each in answers)
    if json:
        counted = {"answered": len(answers), "failed": len(results) - len(answers), "cost_usd": usd}
        print_json({"requests": len(batch), **counted, "out": str(out)})
    else:
        failed = f", {len(results) - len(answers):,} failed" if len(answers) < len(results) else ""
        said = f"{len(answers):,} of {len(batch):,} requests answered for {format_usd(usd)}{failed}: {out}"
        console(sys.stdout).print(said, soft_wrap=True, markup=False)


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


def _line(request: Request, result: Completion | EccosError) -> dict[str, Any]:
    from eccos_core.domain import Completion

    if not isinstance(result, Completion):
        return {"id": request.id, "error": str(result)}
    return {
        "id": request.id,
        "text": result.text,
        "model": result.model,
        "decided_model": result.decision.model,
        "decision_id": result.decision.id,
        "cost_usd": result.cost_usd,
        "input_tokens": result.input_tokens,
        "output_tokens": result.output_tokens,
    }
