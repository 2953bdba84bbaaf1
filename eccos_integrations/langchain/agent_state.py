"""What `EccosMiddleware` keeps in the state of an agent: the steps of the run, and what they cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Annotated, Any, NotRequired

from langchain.agents.middleware.types import AgentState, OmitFromInput
from langchain_core.messages import AIMessage
from typing_extensions import TypedDict

from eccos_core.domain import new_id
from eccos_integrations._shared.messages import PROVIDER

_SPENT_BEFORE_USD: ContextVar[float] = ContextVar("eccos_spent_before_usd", default=0.0)


class EccosStep(TypedDict):
    """One answer of a model in a run. Costs are in USD, `predicted_quality` is in [0, 1]."""

    decision_id: str | None
    model: str
    cost_usd: float
    predicted_quality: float | None
    reason: str | None


class EccosRun(TypedDict):
    """The steps of a run so far. `model` is the one that the run keeps to, where it is decided once.

    `spent_before_usd` is what the runs had spent that this one works for, when it began: it is a subagent's.
    """

    run_id: str
    cost_usd: float
    model: str | None
    steps: list[EccosStep]
    starts: NotRequired[bool]
    spent_before_usd: NotRequired[float]


def start_run() -> EccosRun:
    """Return a run without steps. It replaces the run before it in the state."""
    before_usd = _SPENT_BEFORE_USD.get()
    return EccosRun(run_id=new_id(), cost_usd=0.0, model=None, steps=[], starts=True, spent_before_usd=before_usd)


def spent_usd(run: EccosRun) -> float:
    """Return what counts against the budget of a run in USD: its own steps, and those of the run that it works for."""
    return run["cost_usd"] + run.get("spent_before_usd", 0.0)


@contextmanager
def subagents_of(run: EccosRun) -> Iterator[None]:
    """Let runs that begin in this block, which are those of subagents, spend from the budget of this run."""
    token = _SPENT_BEFORE_USD.set(spent_usd(run))
    try:
        yield
    finally:
        _SPENT_BEFORE_USD.reset(token)


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
        began = EccosRun({**update, "steps": [*update["steps"]]})
        began.pop("starts", None)
        return began
    own = update["run_id"] == before["run_id"]
    first, second = (update["steps"], before["steps"]) if own else (before["steps"], update["steps"])
    steps = [*first, *(step for step in second if step not in first)]
    return EccosRun(
        run_id=before["run_id"],
        spent_before_usd=before.get("spent_before_usd", 0.0),
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
