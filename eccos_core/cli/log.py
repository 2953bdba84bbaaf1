"""`eccos log` shows decisions and exports labelled ones. `eccos record` labels an answer."""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eccos_core.cli.options import SinceOption, resolve_config
from eccos_core.cli.output import JsonOption, console, print_json, table
from eccos_core.cli.route import PoolOption
from eccos_core.errors import DataError, InputError
from eccos_core.io.durations import read_seconds

if TYPE_CHECKING:
    from eccos_core.decision_log import BaseDecisionLog, LoggedDecision
    from eccos_core.routing.decision_store import LabelledDecision

DEFAULT_ROWS = 20
_COLUMNS = ("decision", "when (UTC)", "model", "forecast", "paid", "ms", "failed", "label")

DecisionArgument = Annotated[
    str, typer.Argument(metavar="DECISION_ID", help="The id of the decision. Every answer carries it.")
]
QualityArgument = Annotated[float, typer.Argument(metavar="QUALITY", help="How good the answer was, from 0 to 1.")]
ModelOption = Annotated[str | None, typer.Option("--model", metavar="MODEL", help="Show only this model's decisions.")]
LabelledOption = Annotated[
    bool | None,
    typer.Option("--labelled/--unlabelled", help="Show only decisions with a label, or without one."),
]
LastOption = Annotated[
    int | None,
    typer.Option("--last", min=1, metavar="N", help="Show the N newest decisions. Default: 20, or all with --export."),
]
ExportOption = Annotated[
    Path | None,
    typer.Option(
        "--export", metavar="OUTCOMES", help="Write labelled decisions to an outcomes file for `eccos ingest`."
    ),
]
DeleteBeforeOption = Annotated[
    str | None,
    typer.Option(
        "--delete-before",
        metavar="TIME",
        help="Delete the decisions of before that time, with their labels: 90d, or a date. This cannot be undone.",
    ),
]


def log(
    config: PoolOption = None,
    model: ModelOption = None,
    labelled: LabelledOption = None,
    since: SinceOption = None,
    last: LastOption = None,
    export: ExportOption = None,
    delete_before: DeleteBeforeOption = None,
    json: JsonOption = False,
) -> None:
    """Show the newest decisions of the decision log, export the labelled ones as outcomes, or delete old ones.

    Example: eccos log --since 7d --labelled

    Example: eccos log --export labelled.jsonl

    Example: eccos log --delete-before 90d
    """
    if delete_before is not None:
        if any(each is not None for each in (model, labelled, since, last, export)):
            raise InputError("--delete-before deletes all decisions of before that time. Use no other option with it.")
        _delete(config, delete_before, as_json=json)
        return
    if export is not None and labelled is False:
        raise InputError("--export writes labelled decisions, so it cannot go with --unlabelled. Drop one of them.")
    after = parse_since(since)
    with open_log(config) as decision_log:
        found = decision_log.entries(
            model=model,
            labelled=True if export is not None else labelled,
            since=after,
            last=last or (sys.maxsize if export is not None else DEFAULT_ROWS),
        )
    if export is not None:
        _export(found, decision_log.place, export, as_json=json)
    elif json:
        print_json([_as_json(each) for each in found])
    elif found:
        _print(found, decision_log.place)
    else:
        console().print(f"No such decisions in {decision_log.place}.", soft_wrap=True)


def record(
    decision_id: DecisionArgument, quality: QualityArgument, config: PoolOption = None, json: JsonOption = False
) -> None:
    """Label the answer of a decision with its quality.

    You can label an answer at any time. A new label replaces the old one. To let the router learn from labels, run
    `eccos log --export OUTCOMES` and then `eccos ingest OUTCOMES`. With `eccos.learning` it learns by itself: from this
    command when it starts again, from `Router.record` at once.

    Example: eccos record DECISION_ID 0.9
    """
    from eccos_core.routing.decision_store import DecisionStore

    with open_log(config) as decision_log:
        labelled = DecisionStore(log=decision_log).label(decision_id, quality)
        if decision_log.problem is not None:
            raise InputError(f"the label was not saved: {decision_log.problem}")
        if labelled is not None:
            _keep_for_learning(labelled, decision_log, config)
    if json:
        print_json({"decision_id": decision_id, "quality": quality})
    else:
        console(sys.stdout).print(f"{decision_id}: {quality:g}", soft_wrap=True)


def _keep_for_learning(labelled: LabelledDecision, log: BaseDecisionLog, config: Path | None) -> None:
    """Put a label into the journal of the online layer, if the configuration has one."""
    from eccos_core.assembly.journal import open_journal
    from eccos_core.config import load_config
    from eccos_core.learning.journal import JournalEntry

    loaded = load_config(resolve_config(config))
    journal = None if loaded.learning is None else open_journal(loaded.decision_log.path, log)
    if journal is not None:
        journal.put([JournalEntry(labelled.id, labelled.model, labelled.vector, labelled.quality)])


@contextmanager
def open_log(config: Path | None) -> Iterator[BaseDecisionLog]:
    """Open the decision log of a configuration and close it at the end.

    Raises `InputError` if the configuration has no decision log, `DataError` for a file that is no decision log.
    """
    from eccos_core.config import load_config
    from eccos_core.decision_log import open_decision_log

    loaded = load_config(resolve_config(config))
    wanted = loaded.decision_log
    decision_log = open_decision_log(wanted.path, wanted.address, log_prompts=wanted.log_prompts)
    if decision_log is None:
        raise InputError(
            f"{loaded.path}: eccos.decision_log is off, so no decision is logged. "
            "Remove that line, or give --config a file with a decision log."
        )
    try:
        yield decision_log
    except sqlite3.Error as error:
        raise DataError(decision_log.place, f"cannot be read as a decision log ({error})") from error
    finally:
        decision_log.close()


def parse_since(text: str | None) -> float | None:
    """Return seconds since 1970 for `--since`, see `parse_time`."""
    return None if text is None else parse_time(text, "--since")


def parse_time(text: str, option: str) -> float:
    """Return seconds since 1970 for `30m` or `7d` ago, or for an ISO date or time (UTC unless it names a zone)."""
    ago_s = read_seconds(text)
    if ago_s is not None:
        return time.time() - ago_s
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(
            f"{option} is {text!r}, it must be a duration such as 30m, 12h or 7d, or a date such as 2026-11-23"
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def format_time(at: float) -> str:
    """Return a time (s since 1970) for people, in UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")


def _delete(config: Path | None, before: str, *, as_json: bool) -> None:
    at = parse_time(before, "--delete-before")
    with open_log(config) as decision_log:
        deleted = decision_log.prune(at)
    if as_json:
        print_json({"log": decision_log.place, "before": at, "deleted": deleted})
    else:
        console(sys.stdout).print(
            f"{decision_log.place}: deleted {deleted} decisions of before {format_time(at)} UTC", soft_wrap=True
        )


def _as_json(entry: LoggedDecision) -> dict[str, Any]:
    values = {name: getattr(entry, name) for name in entry.__slots__ if name not in {"vector", "attempts", "forecast"}}
    values["forecast"] = {
        name: {"quality": quality, "cost_usd": cost_usd} for name, (quality, cost_usd) in entry.forecast.items()
    }
    values["attempts"] = [asdict(attempt) for attempt in entry.attempts]
    return values


def _print(found: Sequence[LoggedDecision], place: str) -> None:
    from eccos_core.routing.decisions import format_usd

    rows = [
        (
            each.id,
            format_time(each.at),
            each.model or f"{each.decided_model} (no answer)",
            f"{each.quality:.3f}",
            format_usd(each.paid_usd) if each.paid_usd is not None else "",
            f"{each.latency_s * 1000:.0f}" if each.latency_s is not None else "",
            ", ".join(f"{attempt.model}: {attempt.kind}" for attempt in each.attempts),
            f"{each.label:g}" if each.label is not None else "",
        )
        for each in found
    ]
    title = f"{place}: the newest {len(found)} decisions"
    console(sys.stdout).print(table(title, _COLUMNS, rows, numbers=("forecast", "paid", "ms", "label")))


def _export(found: Sequence[LoggedDecision], place: str, target: Path, *, as_json: bool) -> None:
    """Write labelled decisions, the oldest first. So the newest of two answers to one question counts."""
    from eccos_core.domain import Outcome
    from eccos_core.io.outcome_tables import table_of
    from eccos_core.io.outcomes import write_outcomes

    outcomes = [
        Outcome(
            question_id=each.text_key,
            query=each.text,
            model=each.model or each.decided_model,
            quality=each.label,
            input_tokens=each.input_tokens,
            output_tokens=each.output_tokens,
            cost_usd=each.paid_usd,
        )
        for each in reversed(found)
        if each.text is not None and each.label is not None
    ]
    textless = len(found) - len(outcomes)
    if not outcomes:
        if not textless:
            raise DataError(place, "nothing to export: no decision has a label. Add labels with `eccos record`.")
        raise DataError(
            place,
            f"nothing to export: the {textless} labelled decisions have no text, and an outcome needs its question. "
            "For later decisions, set eccos.decision_log.log_prompts.",
        )
    exported = table_of(outcomes)
    write_outcomes(target, exported)
    if as_json:
        print_json(
            {"file": str(target), "questions": len(exported), "outcomes": len(outcomes), "without_text": textless}
        )
        return
    left_out = f" {textless} more have no text and were left out." if textless else ""
    console(sys.stdout).print(
        f"Wrote {len(outcomes)} labelled decisions ({len(exported)} questions) to {target}.{left_out}",
        soft_wrap=True,
    )
