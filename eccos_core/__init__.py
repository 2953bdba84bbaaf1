"""eccos: an LLM router that answers every request with the cheapest model that is good enough, and can prove it.

The three pages to read are `eccos_core.domain` (the nouns), `eccos_core.protocols` (what can be swapped) and
`eccos_core.router` (the story). Names below are imported when they are first used, so that `import eccos_core` is fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Assignment": "domain",
    "Budget": "domain",
    "Completion": "domain",
    "Decision": "domain",
    "EccosError": "errors",
    "Forecast": "domain",
    "Model": "domain",
    "Outcome": "domain",
    "QualityPrice": "domain",
    "QualityFloor": "domain",
    "Request": "domain",
    "Router": "router",
    "RoutingProblem": "domain",
}

if TYPE_CHECKING:
    from eccos_core.domain import (
        Assignment,
        Budget,
        Completion,
        Decision,
        Forecast,
        Model,
        Outcome,
        QualityFloor,
        QualityPrice,
        Request,
        RoutingProblem,
    )
    from eccos_core.errors import EccosError
    from eccos_core.router import Router

__all__ = [
    "Assignment",
    "Budget",
    "Completion",
    "Decision",
    "EccosError",
    "Forecast",
    "Model",
    "Outcome",
    "QualityFloor",
    "QualityPrice",
    "Request",
    "Router",
    "RoutingProblem",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"eccos_core.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'eccos_core' has no attribute {name!r}")
