"""`EccosMiddleware` in real deep agents: subagents, budgets, checkpointers, interrupts, and a graph around them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from deepagents import create_deep_agent
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command

from eccos_core.domain import Capability, Completion, Message, Model
from eccos_core.router import Router
from eccos_core.testing import ScriptedBackend, scripted_router
from eccos_integrations.langchain import EccosMiddleware, RunBudgetSpentError
from eccos_integrations.langchain.agent_state import EccosAgentState

ABLE = frozenset({Capability.STREAMING, Capability.TOOLS, Capability.JSON_SCHEMA})
Per = Literal["run", "step"]


@tool
def deploy(name: str) -> str:
    """Deploy a service."""
    return f"{name} is deployed"


def calls(tool_name: str, usd: float = 0.001, **args: str) -> Completion:
    function = {"name": tool_name, "arguments": json.dumps(args)}
    call = {"id": f"call-{tool_name}-{len(args)}", "type": "function", "function": function}
    message: Message = {"role": "assistant", "content": "", "tool_calls": [call]}
    return Completion("", "", 100, 10, usd, 0.0, message=message, finish_reason="tool_calls")


def says(text: str, usd: float = 0.001) -> Completion:
    return Completion(text, "", 100, 10, usd, 0.0, message={"role": "assistant", "content": text}, finish_reason="stop")


def pool(small: list[Any], large: list[Any], quality: Any = None) -> tuple[Router, ScriptedBackend]:
    models = tuple(
        Model(name, price, price, max_concurrency=8, context_window=200_000, capabilities=ABLE)
        for name, price in (("small", 1e-8), ("large", 1e-7))
    )
    backend = ScriptedBackend({"small": small, "large": large}, models)
    return scripted_router(backend, models, quality or {"": [0.9, 0.9]}, usd_per_quality=4e-3), backend


def who(backend: ScriptedBackend) -> list[str]:
    return [model for model, _ in backend.calls]


def helper(eccos: EccosMiddleware) -> Any:
    """A subagent whose steps join the run."""
    return {
        "name": "helper",
        "description": "Helps.",
        "system_prompt": "You are the helper.",
        "tools": [],
        "middleware": [eccos],
    }


TASK = {"description": "look it up", "subagent_type": "helper"}


@pytest.mark.parametrize("per", ["step", "run"])
async def test_the_steps_of_a_subagent_join_the_run(per: Per) -> None:
    for way in ("sync", "async"):
        router, backend = pool([calls("task", **TASK), says("found it"), says("all done")], [says("large")])
        eccos = EccosMiddleware(router=router, per=per)
        agent = create_deep_agent(model=eccos.model, middleware=[eccos], subagents=[helper(eccos)])
        asked: Any = {"messages": [HumanMessage("find it")]}
        state = agent.invoke(asked) if way == "sync" else await agent.ainvoke(asked)
        assert state["messages"][-1].text == "all done"
        assert who(backend) == ["small"] * 3
        assert [step["model"] for step in state["eccos"]["steps"]] == ["small"] * 3
        assert len({step["decision_id"] for step in state["eccos"]["steps"]}) == 3
        assert state["eccos"]["cost_usd"] == pytest.approx(0.003)
        assert "You are the helper." in json.dumps(backend.calls[1][1].messages)


async def test_a_subagent_spends_what_the_run_has_left_and_no_more() -> None:
    """The second task would fit a budget of its own, and not what is left."""
    for way in ("sync", "async"):
        router, _ = pool([calls("task", 0.004, **TASK), says("found it", 0.004)], [says("large")])
        eccos = EccosMiddleware(router=router, budget_usd=0.004)
        agent = create_deep_agent(model=eccos.model, middleware=[eccos], subagents=[helper(eccos)])
        asked: Any = {"messages": [HumanMessage("find it")]}
        with pytest.raises(RunBudgetSpentError, match=r"the run has 0\.000000 USD left"):
            _ = agent.invoke(asked) if way == "sync" else await agent.ainvoke(asked)
        assert sum(model.calls for model in router.status().workload.models) == 1


@contextmanager
def saver(kind: str, folder: Path, kept: InMemorySaver) -> Iterator[Any]:
    if kind == "memory":
        yield kept
    else:
        with SqliteSaver.from_conn_string(str(folder / "threads.sqlite")) as opened:
            yield opened


@pytest.mark.parametrize("per", ["step", "run"])
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_an_interrupted_run_goes_on_after_a_restart(kind: str, per: Per, tmp_path: Path) -> None:
    """Agent, middleware and router are new after the interrupt. Only the checkpoint is left."""
    thread: Any = {"configurable": {"thread_id": "7"}}
    quality = {"is deployed": [0.1, 0.9], "": [0.9, 0.9]}  # after the tool only `large` is good enough

    def make(saved: Any, small: list[Any]) -> tuple[Any, ScriptedBackend]:
        router, backend = pool(small, [says("large: done")], quality)
        eccos = EccosMiddleware(router=router, per=per, budget_usd=1.0)
        agent = create_deep_agent(
            model=eccos.model, tools=[deploy], middleware=[eccos], interrupt_on={"deploy": True}, checkpointer=saved
        )
        return agent, backend

    kept = InMemorySaver()
    with saver(kind, tmp_path, kept) as saved:
        agent, _ = make(saved, [calls("deploy", name="web")])
        stopped = agent.invoke({"messages": [HumanMessage("deploy web")]}, thread)
    assert stopped["__interrupt__"][0].value["action_requests"][0]["name"] == "deploy"
    assert len(stopped["eccos"]["steps"]) == 1
    with saver(kind, tmp_path, kept) as saved:
        agent, backend = make(saved, [says("small: done")])
        state = agent.invoke(Command(resume={"decisions": [{"type": "approve"}]}), thread)
    assert len(who(backend)) == 1
    models = [step["model"] for step in state["eccos"]["steps"]]
    assert models == ["small", who(backend)[0]]
    assert state["eccos"]["run_id"] == stopped["eccos"]["run_id"]
    assert state["eccos"]["cost_usd"] == pytest.approx(0.002)
    if per == "run":
        assert who(backend) == ["small"]


def test_an_interrupt_inside_a_subagent_is_resumed_once() -> None:
    router, backend = pool(
        [calls("task", **TASK), calls("deploy", name="web"), says("helper: done"), says("all done")], [says("large")]
    )
    eccos = EccosMiddleware(router=router)
    sub = {**helper(eccos), "tools": [deploy], "interrupt_on": {"deploy": True}}
    agent = create_deep_agent(model=eccos.model, middleware=[eccos], subagents=[sub], checkpointer=InMemorySaver())
    thread: Any = {"configurable": {"thread_id": "9"}}
    stopped: Any = agent.invoke({"messages": [HumanMessage("deploy web")]}, thread)
    assert stopped["__interrupt__"]
    state = agent.invoke(Command(resume={"decisions": [{"type": "approve"}]}), thread)
    assert state["messages"][-1].text == "all done"
    assert who(backend) == ["small"] * 4
    assert len(state["eccos"]["steps"]) == 4


def test_a_deep_agent_is_a_node_of_a_graph_and_its_thread_goes_on() -> None:
    router, backend = pool([says("one"), says("two")], [says("large")])
    eccos = EccosMiddleware(router=router)
    agent = create_deep_agent(model=eccos.model, middleware=[eccos])

    graph = StateGraph(EccosAgentState)
    graph.add_node("agent", agent)
    graph.add_edge(START, "agent")
    compiled = graph.compile(checkpointer=InMemorySaver())
    thread: Any = {"configurable": {"thread_id": "3"}}
    for steps, expected in enumerate(("one", "two"), 1):
        state = compiled.invoke({"messages": [HumanMessage("hello")]}, thread)
        assert state["messages"][-1].text == expected
        # the graph's own state adds up the runs of its agents. An agent's own begins each run anew
        assert [step["model"] for step in state["eccos"]["steps"]] == ["small"] * steps
    assert len(who(backend)) == 2


async def test_the_model_alone_is_a_node_of_langgraphs_own_graph() -> None:
    router, backend = pool([calls("deploy", name="web"), says("done")], [says("large")])
    eccos = EccosMiddleware(router=router)
    bound = eccos.model.bind_tools([deploy])

    async def ask(state: MessagesState) -> Any:
        return {"messages": [await bound.ainvoke(state["messages"])]}

    from langgraph.prebuilt import ToolNode, tools_condition

    graph = StateGraph(MessagesState)
    graph.add_node("ask", ask)
    graph.add_node("tools", ToolNode([deploy]))
    graph.add_edge(START, "ask")
    graph.add_conditional_edges("ask", tools_condition)
    graph.add_edge("tools", "ask")
    thread: Any = {"configurable": {"thread_id": "4"}}
    state = await graph.compile(checkpointer=InMemorySaver()).ainvoke({"messages": [HumanMessage("go")]}, thread)
    assert [message.type for message in state["messages"]] == ["human", "ai", "tool", "ai"]
    assert who(backend) == ["small", "small"]
