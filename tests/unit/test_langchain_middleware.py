"""EccosMiddleware in real agents of LangChain: who answers, what the state says, budgets, labels, threads."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Annotated, Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ToolRetryMiddleware
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import BaseTool, InjectedToolCallId, StructuredTool, ToolException, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command
from two_models import QUALITY

from eccos_core.domain import Capability, Completion, Message, Model
from eccos_core.errors import BackendError, InputError
from eccos_core.history import MemoryHistory
from eccos_core.router import Router
from eccos_core.testing import ScriptedBackend, scripted_router
from eccos_integrations.langchain import EccosMiddleware, RunBudgetSpentError
from eccos_integrations.langchain.agent_state import EccosAgentState, EccosRun, merge_runs

ABLE = frozenset({Capability.STREAMING, Capability.TOOLS, Capability.JSON_SCHEMA})


@tool
def divide(a: int, b: int) -> str:
    """Divide two numbers."""
    return str(a // b) if b else "Error: division by zero"


def failing_divide() -> BaseTool:
    """A `divide` that raises, and tells the agent so."""

    def divide(a: int, b: int) -> int:
        if b == 0:
            raise ToolException("division by zero")
        return a // b

    return StructuredTool.from_function(divide, description="Divide two numbers.", handle_tool_error=True)


def calls(text: str, usd: float = 0.001, **args: int) -> Completion:
    """An answer that calls `divide`."""
    function = {"name": "divide", "arguments": json.dumps(args)}
    call = {"id": f"call-{text}", "type": "function", "function": function}
    message: Message = {"role": "assistant", "content": text, "tool_calls": [call]}
    return Completion(text, "", 100, 10, usd, 0.0, message=message, finish_reason="tool_calls")


def says(text: str, usd: float = 0.001) -> Completion:
    return Completion(text, "", 100, 10, usd, 0.0, message={"role": "assistant", "content": text}, finish_reason="stop")


def agent_pool(
    small: list[Any],
    large: list[Any],
    *,
    quality: Any = QUALITY,
    able: frozenset[Capability] = ABLE,
    window: int = 8000,
    **settings: Any,
) -> tuple[Router, ScriptedBackend]:
    models = (
        Model("small", 1e-6, 1e-6, max_concurrency=8, context_window=window, capabilities=able),
        Model("large", 1e-5, 1e-5, max_concurrency=8, context_window=8000, capabilities=ABLE),
    )
    backend = ScriptedBackend({"small": small, "large": large}, models)
    return scripted_router(backend, models, quality, **{"usd_per_quality": 4e-3, **settings}), backend


def who(backend: ScriptedBackend) -> list[str]:
    return [model for model, _ in backend.calls]


def test_a_step_is_decided_and_the_state_says_what_it_cost() -> None:
    router, backend = agent_pool([calls("looking", a=6, b=3), says("It is 2.")], [says("large")])
    eccos = EccosMiddleware(router=router)
    agent = create_agent(eccos.model, [divide], middleware=[eccos], system_prompt="You are a calculator.")
    state = agent.invoke({"messages": [HumanMessage("an easy one")]})
    run = state["eccos"]
    assert [step["model"] for step in run["steps"]] == who(backend) == ["small", "small"]
    assert run["cost_usd"] == pytest.approx(0.002)
    assert "starts" not in run
    first, last = (each for each in state["messages"] if isinstance(each, AIMessage))
    assert first.response_metadata["decision_id"] == run["steps"][0]["decision_id"]
    assert (first.response_metadata["run_step"], last.response_metadata["run_step"]) == (1, 2)
    assert last.response_metadata["run_cost_usd"] == pytest.approx(0.002)
    sent = backend.calls[0][1]
    assert sent.messages[0] == {"role": "system", "content": "You are a calculator."}
    assert [each["function"]["name"] for each in sent.parameters["tools"]] == ["divide"]


async def test_it_works_asynchronously_and_streams_tokens() -> None:
    router, _ = agent_pool([calls("looking", a=6, b=3), "It is two indeed."], [says("large")])
    eccos = EccosMiddleware(router=router)
    agent = create_agent(eccos.model, [divide], middleware=[eccos])
    pieces = [
        chunk.text
        async for chunk, _ in agent.astream({"messages": [HumanMessage("easy")]}, stream_mode="messages")
        if isinstance(chunk, AIMessageChunk) and chunk.text
    ]
    assert pieces == ["looking", "It", " is", " two", " indeed."]
    state = await agent.ainvoke({"messages": [HumanMessage("easy")]})
    assert len(state["eccos"]["steps"]) == 1
    updates = list(agent.stream({"messages": [HumanMessage("easy")]}, stream_mode="updates"))
    assert any("eccos" in (update or {}) for each in updates for update in each.values())


def test_per_step_follows_the_conversation_and_per_run_keeps_its_model() -> None:
    quality = {"tired": [0.1, 0.9], "": [0.9, 0.95]}  # what the text says changes with the second question

    def pool() -> tuple[Router, ScriptedBackend]:
        return agent_pool([calls("s", a=4, b=2), says("small")], [says("large")], quality=quality)

    for per, expected in (("step", ["small", "large"]), ("run", ["small", "small"])):
        router, backend = pool()
        eccos = EccosMiddleware(router=router, per=per)  # type: ignore[arg-type]
        agent = create_agent(eccos.model, [divide], middleware=[eccos, tire()])
        agent.invoke({"messages": [HumanMessage("easy")]})
        assert who(backend) == expected


def tire() -> Any:
    """A middleware that adds a user message after a tool's result."""

    class Tire(AgentMiddleware):  # type: ignore[type-arg]
        def before_model(self, state: Any, runtime: Any) -> dict[str, Any] | None:
            last = state["messages"][-1]
            return {"messages": [HumanMessage("tired")]} if isinstance(last, ToolMessage) else None

    return Tire()


async def test_a_run_is_decided_again_where_its_model_fails() -> None:
    failing = BackendError("small", "gone", retryable=False)
    router, backend = agent_pool([calls("s", a=4, b=2), failing], [says("large")])
    eccos = EccosMiddleware(router=router, per="run")
    agent = create_agent(eccos.model, [divide], middleware=[eccos])
    state = await agent.ainvoke({"messages": [HumanMessage("easy")]})
    assert who(backend)[0] == "small"
    assert state["messages"][-1].text == "large"
    assert state["eccos"]["model"] == "large"


def test_models_that_cannot_call_tools_never_answer() -> None:
    router, backend = agent_pool([says("small")], [says("large")], able=frozenset({Capability.STREAMING}))
    eccos = EccosMiddleware(router=router)
    create_agent(eccos.model, [divide], middleware=[eccos]).invoke({"messages": [HumanMessage("easy")]})
    assert who(backend) == ["large"]


def test_system_prompt_and_tools_count_for_the_context_window() -> None:
    router, backend = agent_pool([says("small")], [says("large")], window=60)
    eccos = EccosMiddleware(router=router)
    ask = {"messages": [HumanMessage("easy")]}
    create_agent(eccos.model, middleware=[eccos]).invoke(ask)  # type: ignore[arg-type]
    create_agent(eccos.model, middleware=[eccos], system_prompt="Be kind. " * 40).invoke(ask)  # type: ignore[arg-type]
    create_agent(eccos.model, [divide], middleware=[eccos]).invoke(ask)  # type: ignore[arg-type]
    assert who(backend) == ["small", "large", "large"]


# --------------------------------------------------------------------------------------------------------- the budget


def expensive() -> tuple[Router, ScriptedBackend]:
    return agent_pool(
        [calls("s", 1e-4, a=1, b=1), says("small", 1e-4)], [calls("l", a=1, b=1), calls("m", a=2, b=1), says("large")]
    )


def test_a_budget_leaves_only_what_the_run_can_pay() -> None:
    router, backend = expensive()
    eccos = EccosMiddleware(router=router, budget_usd=0.0015)
    agent = create_agent(eccos.model, [divide], middleware=[eccos])
    state = agent.invoke({"messages": [HumanMessage("hard")]})
    assert who(backend) == ["large", "small", "small"]  # another call of `large` costs more than is left
    assert state["eccos"]["cost_usd"] == pytest.approx(0.0012)


async def test_a_spent_budget_is_an_error_or_the_cheapest_model() -> None:
    router, backend = expensive()
    eccos = EccosMiddleware(router=router, budget_usd=0.001, when_spent="cheapest")
    state = await create_agent(eccos.model, [divide], middleware=[eccos]).ainvoke({"messages": [HumanMessage("hard")]})
    assert state["messages"][-1].text == "small"
    assert who(backend) == ["large", "small", "small"]
    router, backend = expensive()
    eccos = EccosMiddleware(router=router, budget_usd=0.001)
    agent = create_agent(eccos.model, [divide], middleware=[eccos])
    with pytest.raises(RunBudgetSpentError, match=r"0\.000000 USD left.*when_spent='cheapest'"):
        await agent.ainvoke({"messages": [HumanMessage("hard")]})
    assert who(backend) == ["large"]


def test_every_run_of_a_thread_has_its_whole_budget() -> None:
    router, _ = agent_pool([says("one"), says("two")], [says("large")])
    eccos = EccosMiddleware(router=router, budget_usd=0.0015)
    agent = create_agent(eccos.model, middleware=[eccos], checkpointer=InMemorySaver())
    thread: Any = {"configurable": {"thread_id": "7"}}
    for expected in ("one", "two"):
        state = agent.invoke({"messages": [HumanMessage("easy")]}, thread)
        assert state["messages"][-1].text == expected
        assert state["eccos"]["cost_usd"] == pytest.approx(0.001)
    assert agent.get_state(thread).values["eccos"]["steps"][0]["model"] == "small"


def test_a_run_that_was_interrupted_goes_on_with_what_is_left() -> None:
    router, backend = expensive()
    eccos = EccosMiddleware(router=router, budget_usd=0.0015)
    agent = create_agent(
        eccos.model, [divide], middleware=[eccos], checkpointer=InMemorySaver(), interrupt_before=["tools"]
    )
    thread: Any = {"configurable": {"thread_id": "8"}}
    agent.invoke({"messages": [HumanMessage("hard")]}, thread)
    agent.invoke(None, thread)
    assert who(backend) == ["large", "small"]  # with a whole budget again it would be `large`


# ----------------------------------------------------------------------------------------- prompt caches and sessions


def test_the_session_is_that_of_the_thread_and_the_beginning_of_the_prompt() -> None:
    router, backend = agent_pool([says("small")], [says("large")])
    eccos = EccosMiddleware(router=router)
    thread: Any = {"configurable": {"thread_id": "7"}}
    saver = InMemorySaver()
    agent = create_agent(eccos.model, middleware=[eccos], checkpointer=saver)
    other = create_agent(eccos.model, middleware=[eccos], system_prompt="Another agent.", checkpointer=saver)
    agent.invoke({"messages": [HumanMessage("easy")]}, thread)
    agent.invoke({"messages": [HumanMessage("easy again")]}, thread)
    other.invoke({"messages": [HumanMessage("easy")]}, {"configurable": {"thread_id": "7", "checkpoint_ns": ""}})
    first, second, third = (request.session_id for _, request in backend.calls)
    assert first is not None
    assert first == second != third
    assert first.startswith("7:")
    sessions = router.decider.sessions
    assert sessions is not None
    assert sessions.model_of(first) == "small"


# ------------------------------------------------------------------------------------------------------------- labels


def labelled_router(small: list[Any], **signals: float) -> tuple[Router, ScriptedBackend]:
    history = MemoryHistory("words:hard,easy", 3)
    router, backend = agent_pool(small, [says("large")], history=history)
    return Router.from_parts(replace(router.parts, signals=signals)), backend


async def test_tool_errors_label_the_answer_that_called_the_tool() -> None:
    script = [calls("s", a=1, b=0), calls("t", a=4, b=2), calls("u", a=4, b=2), says("done")]
    router, _ = labelled_router(script, tool_error=0.0, tool_ok=0.7, repeated_call=0.2)
    eccos = EccosMiddleware(router=router)

    @tool
    def failing(a: int, b: int) -> str:
        """Divide."""
        return str(a // b)

    failing.name = "divide"
    failing.handle_tool_error = True
    agent = create_agent(
        eccos.model, [failing], middleware=[eccos, ToolRetryMiddleware(max_retries=0, on_failure="continue")]
    )
    labels: dict[str, float] = {}
    told = router.record

    def record(decision_id: str, quality: float, **rest: Any) -> None:
        labels[decision_id] = quality
        told(decision_id, quality, **rest)

    router.record = record  # type: ignore[method-assign]
    state = await agent.ainvoke({"messages": [HumanMessage("easy")]})
    steps = [step["decision_id"] for step in state["eccos"]["steps"]]
    assert [labels.get(step) for step in steps] == [0.0, 0.7, 0.2, None]
    assert eccos.record(state, 1.0) == 4
    assert [labels[step] for step in steps] == [1.0] * 4


def test_a_step_is_labelled_by_what_followed_it() -> None:
    """An error is 0, the step before it shares the blame, and the run's quality stands for what follows the last."""
    small = [calls("a", a=6, b=3), calls("b", a=1, b=0), calls("c", a=8, b=2), says("done")]
    router, _ = agent_pool(small, [says("large")])
    eccos = EccosMiddleware(router=router)

    labels: dict[str, float] = {}
    router.record = labels.__setitem__  # type: ignore[method-assign, assignment]
    state = create_agent(eccos.model, [failing_divide()], middleware=[eccos]).invoke(
        {"messages": [HumanMessage("easy")]}
    )
    assert eccos.record(state, 0.6, discount=0.5) == 4
    assert [labels[step["decision_id"]] for step in state["eccos"]["steps"]] == pytest.approx([0.5, 0.0, 0.9, 0.8])
    assert eccos.record(state, 0.6, discount=0.0) == 4
    assert [labels[step["decision_id"]] for step in state["eccos"]["steps"]] == [1.0, 0.0, 1.0, 1.0]
    with pytest.raises(InputError, match=r"discount is 1\.5, must be between 0 and 1"):
        eccos.record(state, 0.6, discount=1.5)


@pytest.mark.parametrize(
    ("step_up_after", "fails", "answered"),
    [
        (None, 3, ["small", "small", "small", "small"]),
        (1, 2, ["small", "large", "large", "small"]),
        (2, 2, ["small", "small", "large", "small"]),
    ],
)
async def test_better_models_try_a_step_again(step_up_after: int | None, fails: int, answered: list[str]) -> None:
    """The row ends with a tool that went well: then the cheap model may answer again."""
    steps = [*[calls("wrong", a=1, b=0)] * fails, *[calls("right", a=6, b=3)] * (3 - fails), says("done")]
    script: dict[str, list[Completion]] = {"small": [], "large": [says("unused")]}
    for name in ("small", "large"):
        script[name] = [step for step, model in zip(steps, answered, strict=True) if model == name] or script[name]
    for ask in ("invoke", "ainvoke"):
        router, backend = agent_pool(script["small"], script["large"])
        eccos = EccosMiddleware(router=router, step_up_after=step_up_after)
        agent = create_agent(eccos.model, [failing_divide()], middleware=[eccos])
        asked = getattr(agent, ask)({"messages": [HumanMessage("easy")]})
        state = await asked if ask == "ainvoke" else asked
        assert [step["model"] for step in state["eccos"]["steps"]] == who(backend) == answered


def test_the_best_model_tries_again_where_none_is_better() -> None:
    router, backend = agent_pool([says("small")], [calls("wrong", a=1, b=0), says("large")])
    eccos = EccosMiddleware(router=router, step_up_after=1)
    create_agent(eccos.model, [failing_divide()], middleware=[eccos]).invoke({"messages": [HumanMessage("hard")]})
    assert who(backend) == ["large", "large"]
    with pytest.raises(InputError, match="step_up_after is 0, must be None or a number of failed steps >= 1"):
        EccosMiddleware(router=router, step_up_after=0)


def test_without_signals_nothing_is_labelled_and_a_state_without_steps_is_refused() -> None:
    router, _ = agent_pool([calls("s", a=1, b=0), says("done")], [says("large")])
    eccos = EccosMiddleware(router=router)
    create_agent(eccos.model, [divide], middleware=[eccos]).invoke({"messages": [HumanMessage("easy")]})
    assert router.decision_store.labelled == 0
    with pytest.raises(InputError, match="no steps of eccos"):
        eccos.record({"messages": []}, 1.0)


def test_a_failed_tool_is_known_to_the_router_and_not_to_the_model() -> None:
    router, backend = agent_pool([says("small")], [says("large")])
    eccos = EccosMiddleware(router=router)
    call = {"name": "divide", "args": {"a": 1, "b": 0}, "id": "1"}
    conversation = [
        HumanMessage("easy"),
        AIMessage("", tool_calls=[call]),
        ToolMessage("no", tool_call_id="1", status="error"),
    ]
    create_agent(eccos.model, [divide], middleware=[eccos]).invoke({"messages": conversation})
    assert backend.calls[0][1].messages[-1] == {"role": "tool", "tool_call_id": "1", "content": "no"}


# ------------------------------------------------------------------------------------------------------ runs in runs


def a_run(run_id: str, *steps: str, starts: bool = False) -> EccosRun:
    made = EccosRun(
        run_id=run_id,
        cost_usd=float(len(steps)),
        model=run_id,
        steps=[
            {"decision_id": each, "model": "small", "cost_usd": 1.0, "predicted_quality": None, "reason": None}
            for each in steps
        ],
    )
    return {**made, "starts": True} if starts else made


def test_the_steps_of_subagents_join_those_of_the_agent_in_any_order() -> None:
    agent = a_run("agent", "1", "2")
    for order in (("left", "right"), ("right", "left")):
        state = agent
        for name in order:
            state = merge_runs(state, a_run(name, f"{name} 1", f"{name} 2"))
        assert {step["decision_id"] for step in state["steps"]} == {"1", "2", "left 1", "left 2", "right 1", "right 2"}
        assert (state["run_id"], state["model"], state["cost_usd"]) == ("agent", "agent", 6.0)
        state = merge_runs(state, a_run("agent", "1", "2", "3"))
        assert state["cost_usd"] == 7.0
        assert merge_runs(state, a_run("next", starts=True))["steps"] == []


def test_steps_from_a_cache_have_no_decision_and_count_once() -> None:
    cached: Any = {"decision_id": None, "model": "small", "cost_usd": 0.0, "predicted_quality": None, "reason": None}
    before = merge_runs(a_run("agent", starts=True), {**a_run("agent"), "steps": [cached]})
    after = merge_runs(before, {**a_run("agent"), "steps": [cached, cached]})
    assert len(after["steps"]) == 2


def test_the_agent_may_be_a_node_of_a_graph() -> None:
    router, backend = agent_pool([calls("s", a=4, b=2), says("done")], [says("large")])
    eccos = EccosMiddleware(router=router)
    graph = StateGraph(EccosAgentState)
    graph.add_node("agent", create_agent(eccos.model, [divide], middleware=[eccos]))
    graph.add_edge(START, "agent")
    state = graph.compile(checkpointer=InMemorySaver()).invoke(
        {"messages": [HumanMessage("easy")]}, {"configurable": {"thread_id": "9"}}
    )
    assert [step["model"] for step in state["eccos"]["steps"]] == who(backend) == ["small", "small"]
    assert state["messages"][-1].text == "done"


def test_an_agent_called_by_a_tool_spends_from_the_same_budget() -> None:
    """Deep agents call subagents this way: the state of the subagent comes back as an update."""
    router, _ = agent_pool([calls("s", a=1, b=1), says("inner"), says("outer")], [says("large")])
    eccos = EccosMiddleware(router=router)
    inner = create_agent(eccos.model, middleware=[eccos], system_prompt="You divide.")

    @tool
    def divide(a: int, b: int, tool_call_id: Annotated[str, InjectedToolCallId]) -> Command[Any]:
        """Divide."""
        state = inner.invoke({"messages": [HumanMessage("easy")]})
        answer = ToolMessage(state["messages"][-1].text, tool_call_id=tool_call_id)
        return Command(update={"messages": [answer], "eccos": state["eccos"]})

    outer = create_agent(eccos.model, [divide], middleware=[eccos])
    state = outer.invoke({"messages": [HumanMessage("easy")]})
    assert state["messages"][-1].text == "outer"
    assert len(state["eccos"]["steps"]) == 3
    assert state["eccos"]["cost_usd"] == pytest.approx(0.003)


def test_deep_agents_work() -> None:
    deepagents = pytest.importorskip("deepagents")
    router, _ = agent_pool([says("small")], [says("large")], window=100_000)
    eccos = EccosMiddleware(router=router)
    agent = deepagents.create_deep_agent(model=eccos.model, tools=[divide], middleware=[eccos])
    state = agent.invoke({"messages": [HumanMessage("easy")]})
    assert len(state["eccos"]["steps"]) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"per": "turn"}, "per is 'turn', must be 'run' or 'step'"),
        ({"when_spent": "stop"}, "when_spent is 'stop'"),
        ({"budget_usd": -1.0}, "budget_usd is -1.0, must be USD >= 0"),
        ({"min_qualty": 0.5}, "did you mean 'min_quality'"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    router, _ = agent_pool([says("small")], [says("large")])
    with pytest.raises((InputError, ValueError), match=message):
        EccosMiddleware(router=router, **settings)
