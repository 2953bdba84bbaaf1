"""What `ChatEccos` and `EccosRouter` have in common: the policy, the conversation, and what the pool can do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from pydantic import Field, model_validator

from eccos_core.domain import Budget, Capability, Decision, Model, OnInfeasible, Policy, QualityFloor, Request
from eccos_core.errors import EccosError
from eccos_integrations._shared import settings as shared

CALL_SETTINGS = shared.CALL_SETTINGS | {"budget_usd", "on_infeasible", "policy", "quality_floor"}
SESSION_KEYS = ("thread_id", "session_id", "conversation_id")  # LangGraph's, and those of LangSmith's threads
_TWO_GOALS = "give quality_floor or budget_usd, not both. The router optimises the other one."


class LangChainSettings(shared.RouterSettings):
    """A router, and what to ask of it.

    Give `config` (path of a configuration file) or `router`. The other fields hold for every call. You can override
    them per call, with `bind` or as arguments of `invoke`.
    """

    quality_floor: float | None = Field(default=None, ge=0, le=1)
    """Least mean predicted quality over a batch. A single call is a batch of one. None: the policy of the router."""
    budget_usd: float | None = Field(default=None, ge=0)
    """Most USD for a batch, predicted. A single call is a batch of one. None: the policy of the router."""
    on_infeasible: OnInfeasible = "error"
    """When `quality_floor` or `budget_usd` is out of reach: an error, or the nearest that can be reached."""
    session_id: str | None = None
    """The conversation. None: the thread of the configuration (`thread_id`), else recognised by its beginning."""

    @model_validator(mode="after")
    def _check_one_goal(self) -> LangChainSettings:
        if self.quality_floor is not None and self.budget_usd is not None:
            raise ValueError(_TWO_GOALS)
        return self

    def _choose_policy(self, given: Mapping[str, Any]) -> Policy | None:
        """Return the policy that the call or this object asks for. None: the router's own."""
        if given.get("policy") is not None:
            policy: Policy = given["policy"]
            return policy
        floor, budget = given.get("quality_floor"), given.get("budget_usd")
        if floor is None and budget is None:
            floor, budget = self.quality_floor, self.budget_usd
        if floor is not None and budget is not None:
            raise ValueError(_TWO_GOALS)
        on_infeasible = self._choose_setting(given, "on_infeasible")
        if floor is not None:
            return QualityFloor(floor, on_infeasible)
        return Budget(budget, on_infeasible) if budget is not None else None

    def _decide_jointly(self, requests: Sequence[Request], given: Mapping[str, Any]) -> list[Decision | EccosError]:
        """Make one assignment for all. A request that no model may answer has its error in its place."""
        return self.router.route_each(requests, policy=self._choose_policy(given))

    def _add_session(self, config: RunnableConfig | None, given: dict[str, Any]) -> dict[str, Any]:
        """Return the call's own settings, with the conversation that the configuration names."""
        if given.get("session_id") is not None or self.session_id is not None:
            return given
        session = find_session(config)
        return given if session is None else {**given, "session_id": session}


def describe_pool(pool: Sequence[Model]) -> dict[str, Any]:
    """Return LangChain's model profile of the models that may answer.

    A request goes only to models that can do what it needs, so what one of them can do, the pool can do.
    """
    can = frozenset[Capability]().union(*(model.capabilities for model in pool))
    profile: dict[str, Any] = {
        "tool_calling": Capability.TOOLS in can,
        "tool_choice": Capability.TOOLS in can,
        "structured_output": Capability.JSON_SCHEMA in can,
        "image_inputs": Capability.VISION in can,
    }
    window = shared.find_context_window(pool)
    return profile if window is None else {**profile, "max_input_tokens": window}


def find_session(config: RunnableConfig | None) -> str | None:
    """Return the conversation that a configuration names, or the one around this call. None where neither does."""
    for each in (config, var_child_runnable_config.get()):
        for section in ("configurable", "metadata"):
            found: Mapping[str, Any] = (each or {}).get(section) or {}  # type: ignore[assignment]
            for key in SESSION_KEYS:
                if found.get(key) not in (None, ""):
                    return str(found[key])
    return None
