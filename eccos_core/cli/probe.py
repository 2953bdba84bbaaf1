"""`eccos check --probe`: call each deployment once with a short prompt and report the result."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

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
            targets.append((label, entry.model, deployment))
    with ThreadPoolExecutor(_CALLS_AT_ONCE) as threads:
        return tuple(threads.map(lambda target: _probe(*target), targets))


def _probe(label: str, model: Model, deployment: Deployment) -> Probe:
    from eccos_core.backends.litellm.backend import LiteLLMBackend

    backend = LiteLLMBackend({model.name: [deployment]}, [model], timeout_s=TIMEOUT_S)
    request = Request.of("Hi", parameters={"max_tokens": 1})
    started = time.perf_counter()
    try:
        backend.complete(model.name, request)
    except EccosError as error:
        return Probe(label, ok=False, latency_s=time.perf_counter() - started, cause=str(error))
    return Probe(label, ok=True, latency_s=time.perf_counter() - started)
