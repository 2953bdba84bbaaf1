"""A server over two scripted models, for the clients of other APIs: small answers, large breaks its stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from serving_process import running_server

from eccos_core.domain import Capability, Completion, Model, Request
from eccos_core.errors import StreamInterrupted
from eccos_core.testing import ScriptedBackend, scripted_router

POOL = tuple(
    Model(name, price, price, max_concurrency=8, capabilities=frozenset(Capability))
    for name, price in (("small", 1e-6), ("large", 2e-5))
)


def two_scripted_models(answer_small: Callable[[Request], str | Completion]) -> ScriptedBackend:
    """A backend whose small model answers by a function."""
    broken = StreamInterrupted("large", "the line broke", received="large says")
    return ScriptedBackend({"small": [answer_small], "large": [broken]}, POOL)


@contextmanager
def serve_two_models(backend: ScriptedBackend) -> Iterator[str]:
    """Run the server, and give its address."""
    with running_server(scripted_router(backend, POOL, {"": [0.8, 0.9]}, usd_per_quality=1e-6)) as running:
        yield running.address
