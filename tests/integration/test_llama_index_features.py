"""What LlamaIndex builds on an LLM runs on `EccosLLM`: engines, chat modes, agents, ingestion, evaluators."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from counting_encoder import CountingEncoder
from llama_index.core import Document, DocumentSummaryIndex, Settings, SummaryIndex, VectorStoreIndex
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent, ReActAgent
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.evaluation import (
    AnswerRelevancyEvaluator,
    CorrectnessEvaluator,
    FaithfulnessEvaluator,
    RelevancyEvaluator,
)
from llama_index.core.extractors import SummaryExtractor, TitleExtractor
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.postprocessor import LLMRerank
from llama_index.core.program import LLMTextCompletionProgram
from llama_index.core.query_engine import MultiStepQueryEngine
from llama_index.core.response_synthesizers import ResponseMode, get_response_synthesizer
from llama_index.core.retrievers import QueryFusionRetriever, RouterRetriever
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.tools import RetrieverTool
from pydantic import BaseModel
from served_pool import KEY, WAYS, pool_given_as, served_pool

from eccos_core.router import Router
from eccos_core.testing import ModelServer
from eccos_integrations.llama_index import EccosLLM, EccosSelector, router_query_engine

pytestmark = pytest.mark.service

TEXTS = ["Vienna lies on the Danube.", "Lima lies on the Rímac.", "Oslo lies on a fjord."]
SCRIPT = {
    "use a tool": '[[tool add {"a": 17, "b": 4}]]',
    "hand it over": '[[tool handoff {"to_agent": "adder", "reason": "sums"}]]',
    "Question: think it over": '[[say Thought: I add.\nAction: add\nAction Input: {"a": 17, "b": 4}]]',
    "Observation: 21": "[[say Thought: I can answer.\nAnswer: It is 21.]]",
    "think it over": '[[say Thought: I add.\nAction: add\nAction Input: {"a": 17, "b": 4}]]',
    "Please tell if a given piece of information is supported by the context": "[[say YES]]",
    "is in line with the context information": "[[say YES]]",
    "## User Query": "[[say 4.0\nFine.]]",
    "evaluate if the response is relevant": "[[say Feedback: good\n[RESULT] 2]]",
    "Doc: 1, Relevance": "[[say Doc: 2, Relevance: 9]]",
}


def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with ModelServer(api_key=KEY, script=SCRIPT) as running:
        yield running


@pytest.fixture(scope="module", params=WAYS)
def pool(request: Any, server: ModelServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    path = served_pool(tmp_path_factory.mktemp("served"), server.url)
    with pool_given_as(request.param, path) as given:
        yield given


@pytest.fixture(autouse=True)
def llm(pool: dict[str, Any]) -> Iterator[EccosLLM]:
    Settings.llm = EccosLLM(**pool)
    Settings.embed_model = MockEmbedding(embed_dim=4)
    yield Settings.llm
    Settings._llm = Settings._embed_model = None


@pytest.fixture
def router(llm: EccosLLM) -> Router:
    return llm.router


@pytest.fixture
def index() -> VectorStoreIndex:
    return VectorStoreIndex.from_documents([Document(text=text) for text in TEXTS])


# ------------------------------------------------------------------------------------------------------------- engines


@pytest.mark.parametrize("mode", [mode for mode in ResponseMode if mode.value not in ("no_text", "context_only")])
async def test_every_response_mode_answers(mode: ResponseMode) -> None:
    nodes = [NodeWithScore(node=TextNode(text=text), score=1.0) for text in TEXTS]
    for use_async in (False, True):
        made = get_response_synthesizer(response_mode=mode, use_async=use_async)
        assert str(made.synthesize("[[say a b]]", nodes=nodes))
        assert str(await made.asynthesize("[[say a b]]", nodes=nodes))


async def test_query_engines_stream_and_answer(index: VectorStoreIndex) -> None:
    assert str(index.as_query_engine().query("[[say the Danube]]")) == "the Danube"
    assert str(await index.as_query_engine().aquery("[[say the Danube]]")) == "the Danube"
    streamed = list(index.as_query_engine(streaming=True).query("[[say a b]]").response_gen)
    assert [piece for piece in streamed if piece] == ["a", " b"]
    summary = SummaryIndex.from_documents([Document(text=text) for text in TEXTS])
    engine = summary.as_query_engine(response_mode="tree_summarize", use_async=True)
    assert str(engine.query("[[say all]]")) == "all"


async def test_tree_summarize_over_many_nodes_is_routed_together(router: Router) -> None:
    counting = CountingEncoder(router.parts.encoder)
    llm = EccosLLM(router=Router.from_parts(replace(router.parts, encoder=counting)), window_s=0.05)
    nodes = [NodeWithScore(node=TextNode(text=f"{text} " * 40), score=1.0) for text in TEXTS * 4]
    engine = get_response_synthesizer(llm=llm, response_mode=ResponseMode.ACCUMULATE, use_async=True)
    response = await engine.asynthesize("[[say one of many]]", nodes=nodes)
    assert str(response).count("one of many") == sum(counting.sizes)
    assert max(counting.sizes) > 1


@pytest.mark.parametrize("mode", ["best", "context", "condense_question", "simple", "condense_plus_context"])
async def test_every_chat_mode_talks(index: VectorStoreIndex, mode: Any) -> None:
    engine = index.as_chat_engine(chat_mode=mode)
    assert "first" in str(engine.chat("[[say first]]"))
    assert "second" in str(await engine.achat("[[say second]]"))
    assert "third" in "".join(engine.stream_chat("[[say third]]").response_gen)
    streamed = await engine.astream_chat("[[say fourth]]")
    assert "fourth" in "".join([piece async for piece in streamed.async_response_gen()])
    assert len(engine.chat_history) == 8


async def test_retrievers_that_ask_an_llm(index: VectorStoreIndex, pool: dict[str, Any]) -> None:
    fusion = QueryFusionRetriever([index.as_retriever()], num_queries=3, use_async=True)
    assert await fusion.aretrieve("rivers")
    named = {"name": "small", "description": "x"}, {"name": "large", "description": "x"}
    tools = [RetrieverTool.from_defaults(index.as_retriever(), **each) for each in named]
    routed = RouterRetriever(EccosSelector(**pool, max_outputs=2), tools)
    assert len(routed.retrieve("rivers")) == 2
    assert await routed.aretrieve("rivers")
    nodes = [NodeWithScore(node=TextNode(text=text), score=0.1) for text in TEXTS]
    ranked = LLMRerank(choice_batch_size=3, top_n=1).postprocess_nodes(nodes, query_str="Doc: 1, Relevance")
    assert ranked[0].node.get_content() == TEXTS[1]


async def test_a_router_query_engine_over_one_index(index: VectorStoreIndex, llm: EccosLLM) -> None:
    engine = router_query_engine(index, llm)
    response = engine.query("[[say hello]]")
    assert str(response) == "hello"
    selection = response.metadata["selector_result"].selections[0]
    assert selection.model == "small"
    assert re.search(r"0\.\d+ USD|USD", selection.reason)
    both = router_query_engine(index, llm, ["small", "large"], max_outputs=2)
    assert len((await both.aquery("[[say hello]]")).metadata["selector_result"].inds) == 2
    with pytest.raises(ValueError, match=r"did you mean 'large'\?"):
        router_query_engine(index, llm, ["small", "larg"]).query("hello")
    with pytest.raises(ValueError, match="no choices"):
        router_query_engine(index, llm, []).query("hello")


# -------------------------------------------------------------------------------------------------------------- agents


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_function_agent_calls_its_tool(llm: EccosLLM, streaming: bool) -> None:
    agent = FunctionAgent(tools=[add], llm=llm, streaming=streaming)
    answer = await agent.run(user_msg="use a tool")
    assert str(answer) == "The tool said: 21"
    assert answer.raw["eccos"]["model"] == "caller"


@pytest.mark.parametrize("model", [None, "small"])
async def test_a_react_agent_needs_no_model_that_calls_tools(pool: dict[str, Any], model: str | None) -> None:
    agent = ReActAgent(tools=[add], llm=EccosLLM(**pool, model=model))
    assert "21" in str(await agent.run(user_msg="think it over"))


async def test_a_workflow_of_agents_hands_over(llm: EccosLLM) -> None:
    first = FunctionAgent(name="chat", description="Talks.", llm=llm, can_handoff_to=["adder"])
    second = FunctionAgent(name="adder", description="Adds.", llm=llm, tools=[add], system_prompt="Add.")
    workflow = AgentWorkflow(agents=[first, second], root_agent="chat")
    answer = await workflow.run(user_msg="hand it over")
    assert answer.current_agent_name == "adder"


async def test_a_function_agent_on_models_without_tools_is_refused(router: Router) -> None:
    agent = FunctionAgent(tools=[add], llm=EccosLLM(router=router, model="small"))
    with pytest.raises(ValueError, match="FunctionCallingLLM"):
        await agent.run(user_msg="use a tool")


async def test_many_agents_at_once(llm: EccosLLM) -> None:
    agents = [FunctionAgent(tools=[add], llm=llm) for _ in range(8)]
    answers = await asyncio.gather(*(agent.run(user_msg="use a tool") for agent in agents))
    assert {str(answer) for answer in answers} == {"The tool said: 21"}


# ------------------------------------------------------------------------------------------- ingestion and evaluators


async def test_ingestion_and_summaries_run_on_it(llm: EccosLLM) -> None:
    steps = [SentenceSplitter(chunk_size=64, chunk_overlap=0), TitleExtractor(llm=llm), SummaryExtractor(llm=llm)]
    documents = [Document(text=text) for text in TEXTS]
    nodes = await IngestionPipeline(transformations=steps).arun(documents=documents)
    assert all({"document_title", "section_summary"} <= node.metadata.keys() for node in nodes)
    summaries = DocumentSummaryIndex.from_documents(documents)
    assert summaries.get_document_summary(documents[0].doc_id)


async def test_evaluators_run_on_it(llm: EccosLLM) -> None:
    asked: dict[str, Any] = {"query": "Where?", "response": "On the Danube.", "contexts": TEXTS}
    assert (await FaithfulnessEvaluator(llm=llm).aevaluate(**asked)).passing
    assert (await RelevancyEvaluator(llm=llm).aevaluate(**asked)).passing
    assert (await CorrectnessEvaluator(llm=llm).aevaluate(**asked, reference="Danube")).score == 4.0
    assert (await AnswerRelevancyEvaluator(llm=llm).aevaluate(**asked)).score == 1.0


def test_text_programs_and_steps_run_on_it(index: VectorStoreIndex, llm: EccosLLM) -> None:
    class City(BaseModel):
        """A city."""

        name: str

    program = LLMTextCompletionProgram.from_defaults(output_cls=City, prompt_template_str="[[say {said}]]", llm=llm)
    assert program(said='{"name": "Lima"}') == City(name="Lima")
    from llama_index.core.indices.query.query_transform import StepDecomposeQueryTransform

    engine = MultiStepQueryEngine(index.as_query_engine(), StepDecomposeQueryTransform(llm), num_steps=2)
    assert str(engine.query("[[say none]]"))


def test_an_engine_can_be_rebuilt_from_a_stored_llm(llm: EccosLLM, tmp_path: Path) -> None:
    stored = llm.to_dict()
    again = EccosLLM.from_dict(stored, router=llm.router)
    assert again.complete("[[say again]]").text == "again"
    assert "router" not in stored
