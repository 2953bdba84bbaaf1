"""`EccosMiddleware`: an agent whose every step, or whose every run, goes to the model that is worth it."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from langchain.agents.middleware.types import (
    AgentMiddleware,
    ExtendedModelResponse,
    ModelRequest,
    ModelResponse,
    ToolCallRequest,
)
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langgraph.runtime import Runtime
from langgraph.types import Command

from eccos_core.errors import (
    AttemptsExhausted,
    BackendError,
    InputError,
    NoEligibleModelError,
    Overloaded,
    StreamInterrupted,
    UnknownDecisionError,
)
from eccos_core.router import Router
from eccos_integrations._shared.settings import resolve_router
from eccos_integrations.langchain.agent_chat import AgentChat, RunBudgetSpentError, WhenSpent
from eccos_integrations.langchain.agent_state import (
    EccosAgentState,
    EccosRun,
    describe_step,
    read_run,
    spent_usd,
    start_run,
    subagents_of,
)
from eccos_integrations.langchain.feedback import find_decision_id
from eccos_integrations.langchain.settings import find_session
from eccos_integrations.langchain.step_labels import (
    REPEATED_CALL,
    TOOL_ERROR,
    TOOL_OK,
    find_failed_models,
    judge_calls,
    label_run,
)

__all__ = ["EccosMiddleware", "RunBudgetSpentError"]

Per: TypeAlias = Literal["run", "step"]
# a run that keeps to one model is decided again where that model cannot take the next step
_DECIDE_AGAIN = (AttemptsExhausted, BackendError, NoEligibleModelError, Overloaded)


class EccosMiddleware(AgentMiddleware[EccosAgentState, Any, Any]):
    """Let the router decide who takes each step of an agent, or each run.

        eccos = EccosMiddleware(config="eccos.yaml", budget_usd=0.05)
        agent = create_agent(eccos.model, tools, middleware=[eccos])
        state = agent.invoke({"messages": [("user", "...")]})
        state["eccos"]["cost_usd"], [step["model"] for step in state["eccos"]["steps"]]

    System prompt, tools and schemas count as they do for `ChatEccos`: only models that can take all of it may answer.
    The conversation stays where its prompt is cached while that pays. `per="run"` decides at the first step, and keeps
    to that model. It decides again only where that model fails or cannot take a step.

    `budget_usd` is for a whole run, subagents included. Before each step only models stay whose predicted cost is
    within what is left. So a run can exceed its budget by the forecast's error of one step, not by more. Subagents that
    work at once each see what was left when they began. When no model is left, `when_spent` says what happens: an
    "error" (`RunBudgetSpentError`), or the "cheapest" model answers.

    `step_up_after` says how many steps in a row may fail before only better models try again. A step failed when one of
    its tools did. Better is a model whose forecast is better than that of every model that failed in that row. When
    there is none, the best answers. The rule needs `per="step"`.

    Where `eccos.labels.signals` names `tool_error`, `tool_ok` or `repeated_call`, the answer that called the tool gets
    that label. `record` labels a whole run. `settings` are those of `ChatEccos`: `min_quality`, `allow`, `deny`,
    `temperature` and so on.
    """

    state_schema = EccosAgentState

    def __init__(
        self,
        config: str | Path | None = None,
        *,
        router: Router | None = None,
        per: Per = "step",
        budget_usd: float | None = None,
        when_spent: WhenSpent = "error",
        step_up_after: int | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        if per not in ("run", "step"):
            raise InputError(f"per is {per!r}, must be 'run' or 'step'")
        if when_spent not in ("error", "cheapest"):
            raise InputError(f"when_spent is {when_spent!r}, must be 'error' or 'cheapest'")
        if budget_usd is not None and not budget_usd >= 0:
            raise InputError(f"budget_usd is {budget_usd}, must be USD >= 0")
        if step_up_after is not None and step_up_after < 1:
            raise InputError(f"step_up_after is {step_up_after}, must be None or a number of failed steps >= 1")
        self.step_up_after = step_up_after
        self.router = resolve_router(type(self).__name__, config, router)
        self.per, self.budget_usd = per, budget_usd
        self.model = AgentChat(config=config, router=self.router, when_spent=when_spent, **settings)
        self.tools = []

    # ------------------------------------------------------------------------------------------------------- the hooks

    def before_agent(self, state: EccosAgentState, runtime: Runtime[Any]) -> dict[str, Any]:
        """Begin a run: without steps, and with its whole budget."""
        return {"eccos": start_run()}

    async def abefore_agent(self, state: EccosAgentState, runtime: Runtime[Any]) -> dict[str, Any]:
        """The asynchronous twin of `before_agent`."""
        return self.before_agent(state, runtime)

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ExtendedModelResponse[Any]:
        """Answer one step with the model that the router decides for."""
        self._label_tools(request.messages)
        run = read_run(request.state)
        *kept, free = self._models(request, run)
        for model in kept:
            try:
                return _extend(handler(request.override(model=model)), run)
            except StreamInterrupted:
                raise
            except _DECIDE_AGAIN:
                continue
        return _extend(handler(request.override(model=free)), run)

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ExtendedModelResponse[Any]:
        """The asynchronous twin of `wrap_model_call`."""
        if self._labels_tools:
            await asyncio.to_thread(self._label_tools, request.messages)
        run = read_run(request.state)
        *kept, free = self._models(request, run)
        for model in kept:
            try:
                return _extend(await handler(request.override(model=model)), run)
            except StreamInterrupted:
                raise
            except _DECIDE_AGAIN:
                continue
        return _extend(await handler(request.override(model=free)), run)

    def wrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], ToolMessage | Command[Any]]
    ) -> ToolMessage | Command[Any]:
        """Run a tool. An agent that it calls spends from what this run has left."""
        with subagents_of(read_run(request.state)):
            return handler(request)

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[ToolMessage | Command[Any]]]
    ) -> ToolMessage | Command[Any]:
        """The asynchronous twin of `wrap_tool_call`."""
        with subagents_of(read_run(request.state)):
            return await handler(request)

    def after_agent(self, state: EccosAgentState, runtime: Runtime[Any]) -> None:
        """Label the last calls of a run that ended with a tool."""
        self._label_tools(state["messages"])

    async def aafter_agent(self, state: EccosAgentState, runtime: Runtime[Any]) -> None:
        """The asynchronous twin of `after_agent`."""
        if self._labels_tools:
            await asyncio.to_thread(self._label_tools, state["messages"])

    # ------------------------------------------------------------------------------------------------------ who answers

    def _models(self, request: ModelRequest[Any], run: EccosRun) -> Iterator[AgentChat]:
        """Yield the models to ask, in order: the one that the run keeps to, and then the whole pool."""
        settings: dict[str, Any] = {}
        if self.budget_usd is not None:
            settings["usd_left"] = self.budget_usd - spent_usd(run)
        if self.model.session_id is None:
            settings["session_id"] = name_session(request)
        if self.per == "run" and run["model"] is not None:
            yield self.model.model_copy(update={**settings, "model": run["model"]})
        if self.step_up_after is not None and self.per == "step":
            failed = find_failed_models(request.messages)
            if len(failed) >= self.step_up_after:
                settings["better_than"] = frozenset(failed)
        yield self.model.model_copy(update=settings)

    # ---------------------------------------------------------------------------------------------------------- labels

    @property
    def _labels_tools(self) -> bool:
        return not self.router.parts.signals.keys().isdisjoint((TOOL_ERROR, TOOL_OK, REPEATED_CALL))

    def _label_tools(self, messages: Sequence[BaseMessage]) -> None:
        """Label the newest answer that called tools by what came of its calls."""
        if not self._labels_tools:
            return
        place = max((i for i, each in enumerate(messages) if isinstance(each, AIMessage)), default=-1)
        answer = messages[place] if place >= 0 else None
        decision_id = None if answer is None else find_decision_id(answer)
        if not isinstance(answer, AIMessage) or decision_id is None:
            return
        signal = judge_calls(answer, messages[:place], messages[place + 1 :])
        if signal is not None and signal in self.router.parts.signals:
            try:
                self.router.signal(decision_id, signal)
            except UnknownDecisionError:  # of another process, whose thread goes on here
                return

    def record(self, state: Mapping[str, Any], quality: float, *, discount: float | None = None) -> int:
        """Label every step of a run that ended, and return how many there were.

        `state` is what the agent returned. `quality` in [0, 1] is how good the run was. Without a `discount`, each step
        gets it. With one in [0, 1], a step whose tool failed gets 0, and the others share in what followed them: see
        `eccos_core.io.step_credit.credit_steps`. Raises `InputError` for a state without steps and for numbers outside
        [0, 1], and as `Router.record`.
        """
        labels = label_run(state, quality, discount)
        if not labels:
            raise InputError(
                "this state has no steps of eccos. Give what an agent with this middleware returned: "
                "middleware.record(agent.invoke(...), quality)."
            )
        for decision_id, label in labels.items():
            self.router.record(decision_id, label)
        return len(labels)


def name_session(request: ModelRequest[Any]) -> str | None:
    """Name the conversation whose prompt a provider may have cached. None where no thread is known.

    A subagent and a summarised conversation share a thread with others, but not the beginning of their prompt. So the
    beginning is part of the name.
    """
    thread = find_session(None)
    if thread is None:
        return None
    system = request.system_message.text if request.system_message is not None else ""
    tools = [each.get("name") if isinstance(each, dict) else each.name for each in request.tools]
    first = request.messages[0].text if request.messages else ""
    beginning = json.dumps([system, tools, first], default=str)
    return f"{thread}:{hashlib.sha256(beginning.encode()).hexdigest()[:8]}"


def _extend(response: ModelResponse[Any], run: EccosRun) -> ExtendedModelResponse[Any]:
    """Return the response with the run's numbers on its message, and the update of the state."""
    result, steps, total = [], [], run["cost_usd"]
    for message in response.result:
        step = describe_step(message) if isinstance(message, AIMessage) else None
        if step is not None:
            steps.append(step)
            total += step["cost_usd"]
            told = {"run_step": len(run["steps"]) + len(steps), "run_cost_usd": total}
            message = message.model_copy(update={"response_metadata": {**message.response_metadata, **told}})
        result.append(message)
    model = steps[-1]["model"] if steps else run["model"]
    update = EccosRun(
        run_id=run["run_id"],
        spent_before_usd=run.get("spent_before_usd", 0.0),
        cost_usd=total,
        model=model,
        steps=[*run["steps"], *steps],
    )
    extended = ModelResponse(result=result, structured_response=response.structured_response)
    return ExtendedModelResponse(model_response=extended, command=Command(update={"eccos": update}))
