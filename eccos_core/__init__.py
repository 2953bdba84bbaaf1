"""eccos: an LLM router that answers every request with the cheapest model that is good enough, and can prove it.

Three files tell the library: `eccos_core.domain` (the nouns), `eccos_core.protocols` (what you can swap) and
`eccos_core.router` (the story). The names below are imported when you first use them, so `import eccos_core` is fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "domain": (
        "Assignment",
        "Budget",
        "Capability",
        "Chunk",
        "Completion",
        "Decision",
        "DriftAlarm",
        "Forecast",
        "GroupShare",
        "Message",
        "Model",
        "Outcome",
        "Policy",
        "QualityFloor",
        "QualityPrice",
        "Request",
        "RouterStatus",
        "RoutingProblem",
    ),
    "errors": (
        "ArtifactError",
        "AttemptsExhausted",
        "BackendError",
        "CertificateError",
        "CircuitOpen",
        "ConfigError",
        "DataError",
        "EccosError",
        "FailureKind",
        "ForkedProcessError",
        "GradingError",
        "HistoryError",
        "InfeasibleError",
        "InputError",
        "MissingDependencyError",
        "NoEligibleModelError",
        "Overloaded",
        "ProviderBatchError",
        "RequestError",
        "RoutingError",
        "SharedStateError",
        "StreamInterrupted",
        "UnknownDecisionError",
        "UnknownModelError",
    ),
    "packing": ("PackingRule",),
    "router": ("Router",),
    "routing.outside_call": ("OutsideCall",),
    "routing.parts": ("Parts",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

if TYPE_CHECKING:
    from eccos_core.domain import (
        Assignment,
        Budget,
        Capability,
        Chunk,
        Completion,
        Decision,
        DriftAlarm,
        Forecast,
        GroupShare,
        Message,
        Model,
        Outcome,
        Policy,
        QualityFloor,
        QualityPrice,
        Request,
        RouterStatus,
        RoutingProblem,
    )
    from eccos_core.errors import (
        ArtifactError,
        AttemptsExhausted,
        BackendError,
        CertificateError,
        CircuitOpen,
        ConfigError,
        DataError,
        EccosError,
        FailureKind,
        ForkedProcessError,
        GradingError,
        HistoryError,
        InfeasibleError,
        InputError,
        MissingDependencyError,
        NoEligibleModelError,
        Overloaded,
        ProviderBatchError,
        RequestError,
        RoutingError,
        SharedStateError,
        StreamInterrupted,
        UnknownDecisionError,
        UnknownModelError,
    )
    from eccos_core.packing import PackingRule
    from eccos_core.router import Router
    from eccos_core.routing.outside_call import OutsideCall
    from eccos_core.routing.parts import Parts

__all__ = [
    "ArtifactError",
    "Assignment",
    "AttemptsExhausted",
    "BackendError",
    "Budget",
    "Capability",
    "CertificateError",
    "Chunk",
    "CircuitOpen",
    "Completion",
    "ConfigError",
    "DataError",
    "Decision",
    "DriftAlarm",
    "EccosError",
    "FailureKind",
    "Forecast",
    "ForkedProcessError",
    "GradingError",
    "GroupShare",
    "HistoryError",
    "InfeasibleError",
    "InputError",
    "Message",
    "MissingDependencyError",
    "Model",
    "NoEligibleModelError",
    "Outcome",
    "OutsideCall",
    "Overloaded",
    "PackingRule",
    "Parts",
    "Policy",
    "ProviderBatchError",
    "QualityFloor",
    "QualityPrice",
    "Request",
    "RequestError",
    "Router",
    "RouterStatus",
    "RoutingError",
    "RoutingProblem",
    "SharedStateError",
    "StreamInterrupted",
    "UnknownDecisionError",
    "UnknownModelError",
    "__version__",
]


if not TYPE_CHECKING:  # a type checker finds the names above, and reports a misspelled one

    def __getattr__(name: str) -> Any:
        if name in _HOME_OF:
            return getattr(import_module(f"eccos_core.{_HOME_OF[name]}"), name)
        raise AttributeError(f"module 'eccos_core' has no attribute {name!r}")
