"""Run a LangChain agent with tools over several turns. Its conversation stays on one model while that pays off.

python examples/langchain_agent.py
"""

from __future__ import annotations

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langchain_served import served_pool
from langgraph.checkpoint.memory import InMemorySaver

from eccos_integrations.langchain import ChatEccos


@tool
def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


def main() -> None:
    with served_pool() as configuration:
        # `small` cannot call tools, so it never answers here
        agent = create_agent(ChatEccos(config=configuration), [multiply], checkpointer=InMemorySaver())
        thread: RunnableConfig = {"configurable": {"thread_id": "a conversation"}}
        agent.invoke({"messages": [HumanMessage('What is 17 * 23? [[tool multiply {"a": 17, "b": 23}]]')]}, thread)
        state = agent.invoke({"messages": [HumanMessage("Thank you. [[say You are welcome.]]")]}, thread)
        for message in state["messages"]:
            who = message.response_metadata["model_name"] if isinstance(message, AIMessage) else message.type
            print(f"{who:>8}: {message.text or [call['name'] for call in message.tool_calls]}")


if __name__ == "__main__":
    main()
