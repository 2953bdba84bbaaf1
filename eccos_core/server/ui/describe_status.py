"""How the router is doing now, as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from eccos_core.domain import Budget, Policy, QualityFloor
from eccos_core.server.serving import Serving
from eccos_core.server.ui.budgets import read_budgets
from eccos_core.server.ui.viewer import Viewer


async def describe_status(serving: Serving, viewer: Viewer) -> dict[str, Any]:
    """Return models, circuits, queue, budgets and the log's state. What concerns money of all is for admins only."""
    router = serving.router
    status, log = router.status(), router.decision_store.log
    workload = status.workload
    return {
        "viewer": {
            "key_id": viewer.caller.key_id,
            "tenant": viewer.caller.tenant,
            "is_admin": viewer.is_admin,
            "has_keys": viewer.has_keys,
        },
        "policy": describe_policy(router.policy),
        "waiting": workload.waiting,
        "in_flight": workload.in_flight,
        "shared": None if workload.shared is None or not viewer.is_admin else asdict(workload.shared),
        "models": [
            {
                "model": each.model,
                "breaker": each.breaker.value,
                "in_flight": each.in_flight,
                "max_concurrency": each.max_concurrency,
                "error_rate": each.error_rate,
                "latency_s": each.latency_s,
                "requests_last_minute": each.requests_last_minute,
            }
            for each in workload.models
        ],
        "log": {
            "present": log is not None,
            "keeps_prompts": log is not None and log.log_prompts,
            "dropped": status.decisions_dropped,
            "problem": _for_admins(viewer, status.decision_log_problem, "The decision log cannot write now."),
        },
        "configuration_problem": _for_admins(viewer, router.problem, "The newest configuration file is not in use."),
        "certificate_problem": status.certificate_problem,
        "drift": [str(alarm) for alarm in status.drift],
        "labelling": None if status.labelling is None or not viewer.is_admin else asdict(status.labelling),
        "budgets": await read_budgets(serving.gate, viewer),
    }


def describe_policy(policy: Policy) -> dict[str, Any]:
    """Return the policy that holds where neither a request nor its tenant has another one."""
    match policy:
        case QualityFloor():
            return {"kind": "quality_floor", "value": policy.alpha}
        case Budget():
            return {"kind": "budget", "value": policy.usd}
        case _:
            return {"kind": "usd_per_quality_point", "value": policy.usd_per_quality_point}


def _for_admins(viewer: Viewer, problem: str | None, for_others: str) -> str | None:
    return problem if problem is None or viewer.is_admin else for_others
