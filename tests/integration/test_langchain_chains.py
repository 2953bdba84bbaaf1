"""Chains as in LangChain's documentation, with nothing changed but the model: retrieval, extraction, agents, graphs."""

from __future__ import annotations

import operator
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import wrap_model_call
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.output_parsers import JsonOutputParser, StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import RunnablePassthrough
from langchain_core.tools import tool
from langchain_core.vectorstores import InMemoryVectorStore
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from pydantic import BaseModel, Field
from served_pool import KEY, WAYS, pool_given_as, served_pool
from typing_extensions import TypedDict

from eccos_core.errors import NoEligibleModelError
from eccos_core.router import Router
from eccos_core.testing import ModelServer
from eccos_integrations.langchain import ChatEccos, EccosRouter, FeedbackRecorder

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with ModelServer(api_key=KEY) as running:
        yield running


@pytest.fixture(scope="module", params=WAYS)
def pool(request: Any, server: ModelServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    path = served_pool(tmp_path_factory.mktemp("served"), server.url)
    with pool_given_as(request.param, path) as given:
        yield given


@pytest.fixture
def model(pool: dict[str, Any]) -> ChatEccos:
    return ChatEccos(**pool)


@pytest.fixture
def router(model: ChatEccos) -> Router:
    return model.router


@tool
def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


class Person(BaseModel):
    """Information about a person."""

    name: str = Field(description="The name of the person")
    height_in_meters: float | None = Field(default=None, description="Their height")


# ------------------------------------------------------------------------------------------------ chains


def test_prompt_model_parser_over_a_batch(model: ChatEccos) -> None:
    prompt = ChatPromptTemplate.from_messages([("system", "Answer in {language}."), ("user", "{question}")])
    chain = prompt | model | StrOutputParser()
    inputs = [{"language": "French", "question": f"question {i}"} for i in range(12)]
    assert chain.batch(inputs) == [f"You said: question {i}" for i in range(12)]
    assert "".join(chain.stream(inputs[0])) == "You said: question 0"


async def test_retrieval_with_sources(model: ChatEccos) -> None:
    store = InMemoryVectorStore(DeterministicFakeEmbedding(size=32))
    store.add_documents([Document(f"fact {i}", metadata={"source": f"page {i}"}) for i in range(8)])
    prompt = ChatPromptTemplate.from_template("Answer from this context only:\n{context}\n\nQuestion: {question}")

    def formatted(given: dict[str, Any]) -> str:
        return "\n".join(document.page_content for document in given["context"])

    answer = RunnablePassthrough.assign(context=formatted) | prompt | model | StrOutputParser()
    chain = {"context": store.as_retriever(), "question": RunnablePassthrough()} | RunnablePassthrough.assign(
        answer=answer
    )
    result = await chain.ainvoke("What is fact 3?")
    assert "What is fact 3?" in result["answer"]
    assert all(document.page_content in result["answer"] for document in result["context"])
    assert {document.metadata["source"] for document in result["context"]} <= {f"page {i}" for i in range(8)}


@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
def test_structured_extraction(model: ChatEccos, method: Any) -> None:
    extractor = ChatPromptTemplate.from_template("Extract: {text}") | model.with_structured_output(
        Person, method=method
    )
    assert (
        extractor.batch([{"text": "Alan Smith is 1.83 m tall."}] * 3) == [Person(name="text", height_in_meters=1.0)] * 3
    )
    raw = model.with_structured_output(Person, method=method, include_raw=True).invoke("Alan")
    assert isinstance(raw, dict)
    assert raw["raw"].response_metadata["model_name"] == "caller"  # the cheapest that can do it


def test_json_mode_and_a_streaming_parser(model: ChatEccos) -> None:
    chain = model.bind(response_format={"type": "json_object"}) | JsonOutputParser()
    assert list(chain.stream('[[say {"a": 1, "b": [2]}]]'))[-1] == {"a": 1, "b": [2]}


def test_a_picture_goes_to_a_model_that_sees(model: ChatEccos) -> None:
    picture = HumanMessage([{"type": "text", "text": "what?"}, {"type": "image", "url": "https://example.org/a.png"}])
    assert model.invoke([picture]).response_metadata["model_name"] == "large"
    with pytest.raises(NoEligibleModelError, match="cannot do vision"):
        model.invoke([picture], allow=["small", "caller"])


def test_several_tools_at_once_ask_for_a_model_that_can_call_several(model: ChatEccos, server: ModelServer) -> None:
    asked = '[[tool multiply {"a": 2, "b": 3}]] [[tool weather {"city": "Oslo"}]]'
    message = model.bind_tools([multiply, weather], parallel_tool_calls=True).invoke(asked)
    assert [call["name"] for call in message.tool_calls] == ["multiply", "weather"]
    assert message.response_metadata["model_name"] == "large"
    assert server.last_request()["parallel_tool_calls"] is True
    broken = model.bind_tools([multiply]).invoke("[[broken-tool multiply]]")
    assert [call["name"] for call in broken.invalid_tool_calls] == ["multiply"]


# ------------------------------------------------------------------------------------------------ agents


async def test_an_agent_calls_its_tool_and_stays_on_its_model(model: ChatEccos, router: Router) -> None:
    agent = create_agent(model, [multiply], system_prompt="You are a calculator.", checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "agent-1"}}
    asked = {"messages": [HumanMessage('[[tool multiply {"a": 17, "b": 23}]]')]}
    result = agent.invoke(asked, config)
    kinds = [type(message).__name__ for message in result["messages"]]
    assert kinds == ["HumanMessage", "AIMessage", "ToolMessage", "AIMessage"]
    assert result["messages"][-1].content == "The tool said: 391"
    await agent.ainvoke({"messages": [HumanMessage("And now?")]}, config)
    answers = [m for m in (await agent.aget_state(config)).values["messages"] if isinstance(m, AIMessage)]
    assert len(answers) == 3
    assert len({message.response_metadata["model_name"] for message in answers}) == 1
    assert router.decision_store.sessions is not None
    assert router.decision_store.sessions.model_of("agent-1") == answers[0].response_metadata["model_name"]


async def test_an_agent_streams_and_answers_in_a_form(model: ChatEccos) -> None:
    @wrap_model_call  # type: ignore[arg-type]
    def counted(request: Any, handler: Any) -> Any:
        turns.append(len(request.messages))
        return handler(request)

    turns: list[int] = []
    agent = create_agent(model, [weather], response_format=Person, middleware=[counted])
    result = agent.invoke({"messages": [("user", "Who?")]})
    assert isinstance(result["structured_response"], Person)
    assert turns == [1]
    plain = create_agent(model, [weather])
    pieces = [
        piece
        async for piece, _ in plain.astream(
            {"messages": [("user", '[[tool weather {"city": "Oslo"}]]')]}, stream_mode="messages"
        )
    ]
    assert any(isinstance(piece, ToolMessage) for piece in pieces)
    assert "".join(str(piece.content) for piece in pieces if not isinstance(piece, ToolMessage)) == (
        "The tool said: sunny in Oslo"
    )


class State(TypedDict):
    messages: Annotated[list[AnyMessage], operator.add]
    chosen: str


def test_the_decision_is_a_node_of_a_graph(pool: dict[str, Any], model: ChatEccos) -> None:
    chooser = EccosRouter(**pool, quality_floor=0.7)
    graph = StateGraph(State)
    graph.add_node("choose", lambda state: {"chosen": chooser.invoke(state).model})
    graph.add_node("answer", lambda state: {"messages": [model.invoke(state["messages"], model=state["chosen"])]})
    graph.add_edge(START, "choose")
    graph.add_edge("choose", "answer")
    graph.add_edge("answer", END)
    state = graph.compile().invoke({"messages": [HumanMessage("hello")], "chosen": ""})
    assert state["chosen"] == "caller"
    assert state["messages"][-1].response_metadata["model_name"] == "caller"


def test_feedback_on_an_agents_run_labels_its_turns(model: ChatEccos, router: Router) -> None:
    recorder = FeedbackRecorder(router)
    prompt = ChatPromptTemplate.from_messages([MessagesPlaceholder("messages")])
    before = len(router.decision_store.history.table()[0]) if router.decision_store.history is not None else 0
    message = (prompt | model | recorder.scored_by(lambda answer: 1.0)).invoke({"messages": [("user", "feedback?")]})
    assert router.decision_store.history is not None
    table = router.decision_store.history.table()[0]
    assert len(table) == before + 1
    assert table.queries[-1] == "feedback?"
    assert message.content == "You said: feedback?"


def test_a_model_with_a_configuration_pickles_its_path_and_no_key(
    server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVED_KEY", KEY)
    model = ChatEccos(config=served_pool(tmp_path, server.url), temperature=0.5)
    pickled = pickle.dumps(model)
    assert KEY.encode() not in pickled
    again = pickle.loads(pickled)
    assert again.temperature == 0.5
    assert again.router is model.router  # this process's one router of the file
    assert again.invoke("hello").content == "You said: hello"


def test_no_key_is_in_an_error_of_the_provider(server: ModelServer, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SERVED_KEY", "sk-wrong-0123456789abcdef")
        model = ChatEccos(config=served_pool(tmp_path, server.url))
    with pytest.raises(Exception, match="Incorrect API key") as caught:
        model.invoke("hello")
    assert "sk-wrong-0123456789abcdef" not in f"{caught.value!r} {caught.value.__cause__!r} {model!r}"
