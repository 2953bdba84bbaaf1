"""Decide each step of a LangChain agent, hold a budget for the run, and see who answered and what it cost.

python examples/langchain_agent_steps.py
"""

from __future__ import annotations

from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_served import served_pool

from eccos_integrations.langchain import EccosMiddleware, RunBudgetSpentError


@tool
def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


QUESTION = HumanMessage('What is 17 * 23? [[tool multiply {"a": 17, "b": 23}]]')


def main() -> None:
    with served_pool() as configuration:
        eccos = EccosMiddleware(config=configuration, budget_usd=0.01)
        agent = create_agent(eccos.model, [multiply], middleware=[eccos])
        state = agent.invoke({"messages": [QUESTION]})
        for number, step in enumerate(state["eccos"]["steps"], start=1):
            print(f"step {number}: {step['model']}, {step['cost_usd']:.7f} USD. {step['reason']}")
        print(f"the run: {state['eccos']['cost_usd']:.7f} USD. {state['messages'][-1].text}")
        eccos.record(state, 1.0)  # the run went well: a label for each of its steps

        poor = EccosMiddleware(config=configuration, budget_usd=0.00001)
        try:
            create_agent(poor.model, [multiply], middleware=[poor]).invoke({"messages": [QUESTION]})
        except RunBudgetSpentError as error:
            print(f"refused: {error}")


if __name__ == "__main__":
    main()
