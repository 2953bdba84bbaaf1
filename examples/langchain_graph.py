"""Use the decision in LangGraph: as a node of a graph, and to choose a branch. A branch need not be a model.

python examples/langchain_graph.py
"""

from __future__ import annotations

import operator
from typing import Annotated, TypedDict

from langchain_core.messages import AnyMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_served import served_pool
from langgraph.graph import END, START, StateGraph

from eccos_integrations.langchain import ChatEccos, EccosRouter


class State(TypedDict):
    """A conversation, and the model that was chosen for it."""

    messages: Annotated[list[AnyMessage], operator.add]
    chosen: str


def main() -> None:
    with served_pool() as configuration:
        model = ChatEccos(config=configuration)
        chooser = EccosRouter(router=model.router, quality_floor=0.7)

        graph = StateGraph(State)
        graph.add_node("choose", lambda state: {"chosen": chooser.invoke(state).model})
        graph.add_node("answer", lambda state: {"messages": [model.invoke(state["messages"], model=state["chosen"])]})
        graph.add_edge(START, "choose")
        graph.add_edge("choose", "answer")
        graph.add_edge("answer", END)
        state = graph.compile().invoke({"messages": [HumanMessage("Hello")], "chosen": ""})
        print(state["chosen"], "answered:", state["messages"][-1].content)

        # one branch per model: a plain function for the cheap model, a chain for the good one
        carefully = ChatPromptTemplate.from_template("Think step by step. {question}") | model | StrOutputParser()
        routed = EccosRouter(router=model.router, quality_floor=0.7).route_to(
            {"small": lambda given: f"looked up: {given['question']}", "large": carefully.with_config(tags=["careful"])}
        )
        print(routed.batch([{"question": "one"}, {"question": "two"}]))


if __name__ == "__main__":
    main()
