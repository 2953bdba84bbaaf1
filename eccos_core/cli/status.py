"""`eccos status`: each model's use in the last hour and day, from the decision log."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eccos_core.cli.log import open_log
from eccos_core.cli.options import usual_config
from eccos_core.cli.output import JsonOption, console, print_json, table
from eccos_core.cli.route import PoolOption

if TYPE_CHECKING:
    from eccos_core.decision_log import BaseDecisionLog, ModelUsage, ReplicaUsage
    from eccos_core.labelling import Agreement
    from eccos_core.workload.shared import FleetLoad

WINDOWS_S = {"hour": 3600.0, "day": 86_400.0}
_REPLICA_COLUMNS = ("replica", "state", "last seen", "decisions", "share", "paid", "lost entries")
_COLUMNS = ("model", "decisions", "calls", "paid", "median ms", "failed", "labelled", "mean label")


def status(config: PoolOption = None, json: JsonOption = False) -> None:
    """Show each model's calls, cost, latency, failures and labels in the last hour and day.

    Where several replicas share the decision log, the numbers are those of all together, and each replica has a line.
    Where they share their limits through Redis, you see what all of them call now.

    Where a judge and a person labelled the same answers, you see how far they agree, before and after calibration.

    The numbers come from the decision log. For the calls of one process, use `router.status()` in it.

    Example: eccos status --config eccos.yaml
    """
    from eccos_core.decision_log import model_usage

    now = time.time()
    with open_log(config) as decision_log:
        windows = {name: model_usage(decision_log.reader, now - seconds) for name, seconds in WINDOWS_S.items()}
        agreement = _measure_agreement(decision_log)
        replicas = _replicas(decision_log, now)
        labelling = {name: _labelling_usd(decision_log, now - seconds) for name, seconds in WINDOWS_S.items()}
    fleet = _look_at_fleet(config)
    if json:
        print_json(
            {
                "log": decision_log.place,
                "at": now,
                "labelling_usd": labelling,
                **({} if replicas is None else {"replicas": [_replica_json(each, replicas) for each in replicas]}),
                **({} if fleet is None else {"shared": asdict(fleet)}),
                "agreement": {source: asdict(each) for source, each in agreement.items()},
                **{name: [_as_json(each) for each in usage] for name, usage in windows.items()},
            }
        )
    else:
        _print(decision_log.place, windows)
        if replicas is not None:
            _print_replicas(replicas)
        if fleet is not None:
            console(sys.stdout).print(_describe_fleet(fleet), soft_wrap=True)
        for name, usd in labelling.items():
            if usd:
                console(sys.stdout).print(_describe_labelling(name, usd), soft_wrap=True)
        for source, each in agreement.items():
            console(sys.stdout).print(f"{source} beside people: {each}", soft_wrap=True)


def _look_at_fleet(config: Path | None) -> FleetLoad | None:
    """Ask the Redis through which replicas share limits. None where no Redis is named."""
    from eccos_core.assembly.workload import shared_settings
    from eccos_core.config import load_config

    settings = shared_settings(load_config(config or usual_config()))
    if settings is None:
        return None
    from eccos_core.workload.shared import look_at_fleet

    return look_at_fleet(settings)


def _describe_fleet(fleet: FleetLoad) -> str:
    where = f"limits in {fleet.server}, pool {fleet.name!r}"
    if fleet.problem is not None:
        return f"{where}: {fleet.problem}"
    in_flight = fleet.in_flight or {}
    calls = ", ".join(f"{name} {count}" for name, count in in_flight.items())
    said = f"{where}: {fleet.replicas} replicas, {sum(in_flight.values())} calls in flight"
    if calls:
        said += f" ({calls})"
    if fleet.waiting_replicas:
        said += f", requests wait at {fleet.waiting_replicas} of them"
    if fleet.open_circuits:
        said += f", no calls go to {', '.join(fleet.open_circuits)} (circuit open)"
    return said


def _measure_agreement(decision_log: BaseDecisionLog) -> dict[str, Agreement]:
    """Compare each source of labels, and each judge, with people, where both labelled the same answers."""
    from eccos_core.domain import LABEL_SOURCES
    from eccos_core.labelling import measure_agreement

    found: dict[str, Agreement | None] = {
        source: measure_agreement(decision_log.label_pairs(source), calibrate=source == "judge")
        for source in LABEL_SOURCES[1:]
    }
    if len(judges := decision_log.judges()) > 1:
        for judge in judges:
            pairs = decision_log.label_pairs("judge", judge=judge)
            found[f"judge {judge}"] = measure_agreement(pairs, calibrate=True)
    return {source: each for source, each in found.items() if each is not None}


def _labelling_usd(decision_log: BaseDecisionLog, since: float) -> dict[str, float]:
    """Sum up what calls of the judge and shadow answers have cost since a time (s since 1970, UTC)."""
    paid: dict[str, float] = {}
    for _, call, usd in decision_log.spending(since):
        paid[call] = paid.get(call, 0.0) + usd
    return paid


def _describe_labelling(window: str, usd: dict[str, float]) -> str:
    from eccos_core.routing.decisions import format_usd

    each = ", ".join(f"{call} {format_usd(paid)}" for call, paid in usd.items())
    return f"labelling in the last {window}, on top of what the models cost: {each}"


def _replicas(decision_log: BaseDecisionLog, now: float) -> tuple[ReplicaUsage, ...] | None:
    """Return the replicas of the last day, with what they did in the last hour. None where no log is shared."""
    from eccos_core.decision_log import PostgresDecisionLog

    if not isinstance(decision_log, PostgresDecisionLog):
        return None
    return decision_log.replicas(now - WINDOWS_S["hour"])


def _share(replica: ReplicaUsage, replicas: Sequence[ReplicaUsage]) -> float:
    """Return the share of a replica in the decisions of all, in [0, 1]."""
    return replica.decisions / max(1, sum(each.decisions for each in replicas))


def _replica_json(replica: ReplicaUsage, replicas: Sequence[ReplicaUsage]) -> dict[str, Any]:
    return {**asdict(replica), "share": _share(replica, replicas)}


def _print_replicas(replicas: Sequence[ReplicaUsage]) -> None:
    from eccos_core.routing.decisions import format_usd

    out = console(sys.stdout)
    if not replicas:
        out.print("no replica has served in the last day", soft_wrap=True)
        return
    rows = [
        (
            each.name,
            each.state,
            f"{each.seen_ago_s:.0f} s ago",
            str(each.decisions),
            f"{_share(each, replicas):.0%}",
            format_usd(each.paid_usd),
            str(each.dropped),
        )
        for each in replicas
    ]
    out.print(table("replicas: the last hour", _REPLICA_COLUMNS, rows, numbers=_REPLICA_COLUMNS[2:]))


def _as_json(usage: ModelUsage) -> dict[str, Any]:
    return {
        **asdict(usage),
        "calls": usage.calls,
        "error_rate": usage.error_rate,
        "labelled_share": usage.labelled_share,
    }


def _print(place: str, windows: dict[str, tuple[ModelUsage, ...]]) -> None:
    out = console(sys.stdout)
    for name, usage in windows.items():
        if not usage:
            out.print(f"{place}: no decisions in the last {name}", soft_wrap=True)
            continue
        title = f"{place}: the last {name}"
        out.print(table(title, _COLUMNS, [_row(each) for each in usage], numbers=_COLUMNS[1:]))


def _row(usage: ModelUsage) -> tuple[str, ...]:
    from eccos_core.routing.decisions import format_usd

    return (
        usage.model,
        str(usage.decisions),
        str(usage.calls),
        format_usd(usage.paid_usd),
        f"{usage.median_latency_s * 1000:.0f}" if usage.median_latency_s is not None else "",
        f"{usage.error_rate:.1%}" if usage.error_rate is not None else "",
        f"{usage.labelled_share:.0%}" if usage.labelled_share is not None else "",
        f"{usage.mean_label:.3f}" if usage.mean_label is not None else "",
    )
