"""What is left of the tenants' budgets, where the server has keys."""

from __future__ import annotations

from typing import Any

from eccos_core.server.gate import Gate
from eccos_core.server.ui.viewer import Viewer


async def read_budgets(gate: Gate, viewer: Viewer) -> list[dict[str, Any]] | None:
    """Return each tenant's budget of this month, or None for a server without budgets. Others see their own only."""
    return None
