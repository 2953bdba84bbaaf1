"""A router over two scripted models: small is good at easy questions, large at all of them."""

from __future__ import annotations

from typing import Any

from eccos_core.domain import Capability, Model
from eccos_core.router import Router
from eccos_core.testing import ScriptedBackend, scripted_router

QUALITY = {"easy": [0.9, 0.95], "hard": [0.1, 0.9], "": [0.6, 0.8]}
PRICE = 1e-3  # USD per unit of quality: large is worth it for hard questions, not for easy ones


def two_models(answers: dict[str, list[Any]] | None = None, **settings: Any) -> tuple[Router, ScriptedBackend]:
    """`large` alone can call tools, see, and keep to a schema."""
    able = frozenset({Capability.STREAMING, Capability.TOOLS, Capability.VISION, Capability.JSON_SCHEMA})
    cap = settings.pop("max_concurrency", 8)
    models = (
        Model("small", 1e-6, 1e-6, max_concurrency=cap, context_window=2000),
        Model("large", 1e-5, 1e-5, max_concurrency=cap, context_window=8000, capabilities=able),
    )
    latency_s = settings.pop("latency_s", 0.0)
    backend = ScriptedBackend(
        answers or {"small": ["from small"], "large": ["from large"]}, models, latency_s=latency_s
    )
    return scripted_router(backend, models, QUALITY, **{"usd_per_quality": PRICE, **settings}), backend
