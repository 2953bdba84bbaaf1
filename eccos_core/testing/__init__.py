"""Public fakes: what our tests, our examples and our users' tests stand on.

`ModelServer` is a real OpenAI-compatible HTTP server on loopback, in a process of its own, whose answers and faults are
told by the request. `ScriptedBackend` is a `Backend` without any network. `scripted_router` is a real router whose
forecasts are told.
"""

from eccos_core.testing.backend import ScriptedBackend
from eccos_core.testing.router import TablePredictor, WordEncoder, scripted_router
from eccos_core.testing.server import BatchFaults, Faults, ModelServer, ServerStatistics
from eccos_core.testing.tiny_model import build_tiny_model

__all__ = [
    "BatchFaults",
    "Faults",
    "ModelServer",
    "ScriptedBackend",
    "ServerStatistics",
    "TablePredictor",
    "WordEncoder",
    "build_tiny_model",
    "scripted_router",
]
