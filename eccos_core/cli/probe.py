"""`eccos check --probe`: call each deployment once with a short prompt and report the result."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from eccos_core.config import Config, Deployment
from eccos_core.domain import Model, Request
from eccos_core.errors import EccosError

TIMEOUT_S = 30.0
_CALLS_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Probe:
    """The result of one call. `latency_s`: how long it took, failed or not. `cause`: why it failed."""

    label: str
    ok: bool
    latency_s: float
    cause: str = ""


def probe_pool(config: Config) -> tuple[Probe, ...]:
    """Call every deployment of the pool once, several at a time. A failure is part of the result and is not raised."""
    targets = []
    for entry in config.pool:
        for number, deployment in enumerate(entry.deployments, start=1):
            label = entry.model.name
            if len(entry.deployments) > 1:
                label += f" (deployment {number} of {len(entry.deployments)})"
            effort = {} if entry.effort is None else entry.effort.parameters
            targets.append((label, entry.model, deployment, effort))
    with ThreadPoolExecutor(_CALLS_AT_ONCE) as threads:
        return tuple(threads.map(lambda target: _probe(*target), targets))


def _probe(label: str, model: Model, deployment: Deployment, effort: Mapping[str, Any]) -> Probe:
    from eccos_core.backends.efforts import EffortBackend
    from eccos_core.backends.litellm.backend import LiteLLMBackend

    calling = LiteLLMBackend({model.name: [deployment]}, [model], timeout_s=TIMEOUT_S)
    backend = EffortBackend(calling, {model.name: model}, {model.name: effort})
    request = Request.of("Hi", parameters={"max_tokens": 1})
    started = time.perf_counter()
    try:
        completion = backend.complete(model.name, request)
    except EccosError as error:
        return Probe(label, ok=False, latency_s=time.perf_counter() - started, cause=str(error))
    seconds = time.perf_counter() - started
    if completion.attempts > 1:
        cause = f"answers, but the provider refuses its effort ({', '.join(effort)}); correct model_info.efforts"
        return Probe(label, ok=False, latency_s=seconds, cause=cause)
    return Probe(label, ok=True, latency_s=seconds)
