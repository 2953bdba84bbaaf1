"""What `EccosMiddleware` keeps in the state of an agent: the steps of the run, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NotRequired

from langchain.agents.middleware.types import AgentState, OmitFromInput
from langchain_core.messages import AIMessage
from typing_extensions import TypedDict

from eccos_core.domain import new_id
from eccos_integrations._shared.messages import PROVIDER


class EccosStep(TypedDict):
    """One answer of a model in a run. Costs are in USD, `predicted_quality` is in [0, 1]."""

    decision_id: str | None
    model: str
    cost_usd: float
    predicted_quality: float | None
    reason: str | None


class EccosRun(TypedDict):
    """The steps of a run so far. `model` is the one that the run keeps to, where it is decided once."""

    run_id: str
    cost_usd: float
    model: str | None
    steps: list[EccosStep]
    starts: NotRequired[bool]


def start_run() -> EccosRun:
    """Return a run without steps. It replaces the run before it in the state."""
    return EccosRun(run_id=new_id(), cost_usd=0.0, model=None, steps=[], starts=True)


def read_run(state: Mapping[str, Any]) -> EccosRun:
    """Return the run of a state, or one without steps where the middleware has not begun."""
    run = state.get("eccos")
    return run if run and run.get("run_id") else start_run()


def merge_runs(before: EccosRun | None, update: EccosRun | None) -> EccosRun:
    """Return the run after an update: the channel's reducer.

    An update that starts a run replaces what was there. Every other one adds its steps. So the steps of a subagent,
    which has a run of its own, join those of the agent that called it, and several subagents may end at once.
    """
    if not update or not update.get("run_id"):
        return before or start_run()
    if update.get("starts") or not before or not before.get("run_id"):
        return EccosRun(
            run_id=update["run_id"], cost_usd=update["cost_usd"], model=update["model"], steps=[*update["steps"]]
        )
    own = update["run_id"] == before["run_id"]
    first, second = (update["steps"], before["steps"]) if own else (before["steps"], update["steps"])
    steps = [*first, *(step for step in second if step not in first)]
    return EccosRun(
        run_id=before["run_id"],
        cost_usd=sum(step["cost_usd"] for step in steps),
        model=update["model"] if own else before["model"],
        steps=steps,
    )


def describe_step(message: AIMessage) -> EccosStep | None:
    """Return the step that an answer of the pool was. None for an answer of somebody else."""
    told = message.response_metadata
    if told.get("model_provider") != PROVIDER:
        return None
    return EccosStep(
        decision_id=told.get("decision_id"),
        model=str(told.get("model_name")),
        cost_usd=float(told.get("cost_usd") or 0.0),
        predicted_quality=told.get("predicted_quality"),
        reason=told.get("reason"),
    )


class EccosAgentState(AgentState[Any]):
    """The state of an agent with `EccosMiddleware`. `eccos` is in the output of the agent, not in its input."""

    eccos: NotRequired[Annotated[EccosRun, OmitFromInput, merge_runs]]
