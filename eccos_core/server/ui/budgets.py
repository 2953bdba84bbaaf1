"""What is left of the tenants' budgets, where the server has keys."""

from __future__ import annotations

from typing import Any

from eccos_core.server.gate import Gate
from eccos_core.server.keys import KeyGate
from eccos_core.server.keys.describe import describe_tenants
from eccos_core.server.ui.viewer import Viewer


async def read_budgets(gate: Gate, viewer: Viewer) -> list[dict[str, Any]] | None:
    """Return what each tenant has spent and has left this month, in USD. None for a server without budgets.

    Without an admin key a viewer sees their own tenant only.
    """
    if not isinstance(gate, KeyGate):
        return None
    found = describe_tenants(gate.tenants, await gate.balances())
    return [each for each in found if viewer.is_admin or each["tenant"] == viewer.caller.tenant]
