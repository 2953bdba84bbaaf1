"""Run LlamaIndex's function agent (docs: understanding/agent) on a pool. Only models that can call tools answer."""

from __future__ import annotations

import asyncio

from llama_index.core.agent.workflow import AgentOutput, AgentStream, FunctionAgent, ToolCallResult
from llama_index.core.workflow import Context
from llama_index_offline import offline_pool

from eccos_integrations.llama_index import EccosLLM

SCRIPT = {"20+(2*4)": '[[tool multiply {"a": 2, "b": 4}]]', "name is Logan": "[[say Nice to meet you, Logan.]]"}


def multiply(a: float, b: float) -> float:
    """Multiply two numbers and return the product"""
    return a * b


def add(a: float, b: float) -> float:
    """Add two numbers and return the sum"""
    return a + b


async def run(config: str) -> None:
    llm = EccosLLM(config=config)
    workflow = FunctionAgent(
        tools=[multiply, add],
        llm=llm,
        system_prompt="You are an agent that can perform basic mathematical operations using tools.",
    )
    ctx = Context(workflow)
    await workflow.run(user_msg="Hi, my name is Logan!", ctx=ctx)
    handler = workflow.run(user_msg="What is 20+(2*4)?", ctx=ctx)
    called = []
    async for event in handler.stream_events():
        if isinstance(event, ToolCallResult):
            called.append((event.tool_name, event.tool_kwargs, event.tool_output.content))
        elif isinstance(event, AgentStream):
            print(event.delta, end="", flush=True)
    response: object = await handler
    assert isinstance(response, AgentOutput)
    assert isinstance(response.raw, dict)
    print()
    print(called)
    print(response.raw["eccos"]["model"], response.raw["eccos"]["reason"])

    assert called == [("multiply", {"a": 2, "b": 4}, "8")]
    assert str(response) == "The tool said: 8"
    assert response.raw["eccos"]["model"] in ("caller", "large")


def main() -> None:
    with offline_pool(SCRIPT) as config:
        asyncio.run(run(config))


if __name__ == "__main__":
    main()
