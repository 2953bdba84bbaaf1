"""Who looks at the dashboard, and what they may see."""

from __future__ import annotations

from dataclasses import dataclass

from eccos_core.decision_log import LogFilter
from eccos_core.server.gate import Caller


@dataclass(frozen=True, slots=True)
class Viewer:
    """A caller as the dashboard sees them. With an admin key they see all, else the decisions of their own tenant."""

    caller: Caller
    has_keys: bool

    @property
    def is_admin(self) -> bool:
        """Whether they see every tenant, prompts that the log keeps, and may label answers."""
        return self.caller.is_admin

    def filter(self, since: float, until: float) -> LogFilter:
        """Return which decisions they see of a time, in s since 1970 (UTC)."""
        return LogFilter(since, until, self.caller.tenant, every_tenant=self.is_admin)
