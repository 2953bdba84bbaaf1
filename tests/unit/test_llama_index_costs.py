"""What an engine's response says of cost and decision, and the handler that sums them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.llms import ChatMessage, MockLLM
from llama_index_instrumentation import get_dispatcher
from two_models import two_models

from eccos_core.domain import Completion, PlanCall
from eccos_integrations.llama_index import CostCountingHandler, EccosLLM, router_query_engine, router_retriever
from eccos_integrations.llama_index.costs import CostSums
from eccos_integrations.llama_index.messages import build_metadata, to_chat_response
from eccos_integrations.llama_index.responses import (
    MAX_DESCRIBED,
    ResponseEventHandler,
    ResponseSpanHandler,
    describe_responses,
)

DOCUMENTS = [Document(text=f"Fact number {number} about an easy thing. " * 40) for number in range(6)]
PLAN = (
    PlanCall("small", cost_usd=0.1, latency_s=0.1, input_tokens=10, output_tokens=2, why="too uncertain"),
    PlanCall("large", cost_usd=0.9, latency_s=0.2, input_tokens=12, output_tokens=3, accepted=True),
)


@pytest.fixture(scope="module")
def index() -> VectorStoreIndex:
    return VectorStoreIndex.from_documents(DOCUMENTS, embed_model=MockEmbedding(8))


@pytest.fixture
def llm() -> EccosLLM:
    return EccosLLM(router=two_models()[0])


@pytest.fixture
def spans() -> Iterator[ResponseSpanHandler]:
    (handler,) = [each for each in get_dispatcher().span_handlers if isinstance(each, ResponseSpanHandler)]
    handler._asked.clear()  # streams that other tests of this process left unread
    handler.open_spans.clear()
    yield handler
    assert not handler._asked
    assert not handler.open_spans


# ------------------------------------------------------------------------------------------------- response metadata


@pytest.mark.parametrize("mode", ["compact", "refine", "tree_summarize", "accumulate"])
async def test_a_response_says_what_all_its_calls_cost(index: VectorStoreIndex, llm: EccosLLM, mode: Any) -> None:
    engine = index.as_query_engine(llm=llm, response_mode=mode, similarity_top_k=3)
    with CostCountingHandler() as costs:
        response = engine.query("easy")
    told = response.metadata["eccos"]
    assert told["cost_usd"] == pytest.approx(costs.total_cost_usd) != 0
    assert len(told["answers"]) == costs.answer_count >= 1
    assert told["total_tokens"] == costs.total_token_count == told["prompt_tokens"] + told["completion_tokens"]
    assert told["cost_usd_per_model"] == {name: each.cost_usd for name, each in costs.per_model.items()}
    assert told["decision_id"] == told["answers"][-1]["decision_id"]
    assert told["reason"]
    # what LlamaIndex itself puts there stays
    assert {node.node.node_id for node in response.source_nodes} <= response.metadata.keys()
    twin = (await engine.aquery("easy")).metadata["eccos"]
    assert twin["cost_usd"] == pytest.approx(told["cost_usd"])
    assert len(twin["answers"]) == len(told["answers"])


async def test_a_stream_is_described_when_it_was_read(
    index: VectorStoreIndex, llm: EccosLLM, spans: ResponseSpanHandler
) -> None:
    engine = index.as_query_engine(llm=llm, streaming=True)
    response = engine.query("easy")
    assert "eccos" not in response.metadata
    assert "".join(response.response_gen)
    assert response.metadata["eccos"]["cost_usd"] > 0
    streamed = await index.as_query_engine(llm=llm, streaming=True, use_async=True).aquery("easy")
    assert "eccos" not in streamed.metadata
    assert [piece async for piece in streamed.response_gen]
    assert streamed.metadata["eccos"]["model"] == response.metadata["eccos"]["model"]


def test_a_router_engine_counts_all_engines_and_the_summary(index: VectorStoreIndex) -> None:
    llm = EccosLLM(router=two_models({"small": ["a"] * 9, "large": ["b"] * 9})[0])
    with CostCountingHandler() as costs:
        response = router_query_engine(index, llm, max_outputs=2).query("easy")
    told = response.metadata["eccos"]
    assert len(response.metadata["selector_result"].inds) == 2
    assert told["cost_usd"] == pytest.approx(costs.total_cost_usd)
    assert len(told["answers"]) == costs.answer_count == 3
    assert set(told["cost_usd_per_model"]) == {"small", "large"}


async def test_questions_at_once_are_not_mixed_up(index: VectorStoreIndex, spans: ResponseSpanHandler) -> None:
    router, _ = two_models({"small": [lambda request: "word " * int(len(str(request.messages)) % 7 + 1)]})
    engine = index.as_query_engine(llm=EccosLLM(router=router, model="small"))
    alone = [engine.query(f"easy {'x ' * number}").metadata["eccos"]["cost_usd"] for number in range(8)]
    assert len(set(alone)) > 1
    together = await asyncio.gather(*(engine.aquery(f"easy {'x ' * number}") for number in range(8)))
    assert [response.metadata["eccos"]["cost_usd"] for response in together] == alone
    assert all(len(response.metadata["eccos"]["answers"]) == 1 for response in together)
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(lambda number: engine.query(f"easy {'x ' * number}"), range(8)))
    assert [response.metadata["eccos"]["cost_usd"] for response in threaded] == alone


def test_a_chat_engines_response_is_described(index: VectorStoreIndex, llm: EccosLLM) -> None:
    response = index.as_chat_engine(chat_mode="condense_plus_context", llm=llm).chat("easy")
    assert response.metadata is not None
    assert response.metadata["eccos"]["decision_id"]


def test_another_llms_response_is_left_alone(index: VectorStoreIndex, llm: EccosLLM) -> None:
    response = index.as_query_engine(llm=MockLLM()).query("easy")
    assert "eccos" not in response.metadata


def test_a_call_that_fails_is_forgotten(index: VectorStoreIndex, spans: ResponseSpanHandler) -> None:
    llm = EccosLLM(router=two_models()[0])
    with pytest.raises(ValueError, match="n is 2"):
        llm.chat([ChatMessage(content="easy")], n=2)


def test_a_response_describes_the_newest_answers_and_sums_all(llm: EccosLLM) -> None:
    answer = build_metadata(llm.router.complete("easy"))
    handler = ResponseSpanHandler()
    handler.span_enter("outer", bound_args=None)  # type: ignore[arg-type]
    span = handler.open_spans["outer"]
    for _ in range(MAX_DESCRIBED + 5):
        span.add(answer)
    metadata: dict[str, Any] = {}
    span.attach(metadata)
    assert len(metadata["eccos"]["answers"]) == MAX_DESCRIBED
    assert metadata["eccos"]["cost_usd"] == pytest.approx((MAX_DESCRIBED + 5) * answer["cost_usd"])


def test_one_handler_of_each_kind_listens_however_many_llms_there_are(llm: EccosLLM) -> None:
    describe_responses()
    EccosLLM(router=llm.router).only("small")
    assert sum(isinstance(each, ResponseEventHandler) for each in get_dispatcher().event_handlers) == 1


# ----------------------------------------------------------------------------------------------------------- handler


def planned(llm: EccosLLM) -> Completion:
    from dataclasses import replace

    completion = llm.router.complete("easy")
    return replace(completion, calls=PLAN, cost_usd=1.0, model="large", input_tokens=22, output_tokens=5)


def test_a_plans_calls_count_for_the_models_that_were_called(llm: EccosLLM) -> None:
    sums = CostSums()
    sums.add(to_chat_response(planned(llm)).raw["eccos"])  # type: ignore[index]
    assert (sums.total.cost_usd, sums.total.answers, sums.total.total_tokens) == (1.0, 1, 27)
    assert {name: each.cost_usd for name, each in sums.per_model.items()} == {"small": 0.1, "large": 0.9}
    assert sum(each.total_tokens for each in sums.per_model.values()) == 27


def test_counts_are_those_of_the_answers_and_start_again(llm: EccosLLM) -> None:
    costs = CostCountingHandler()
    with costs:
        costs.start()  # a second start does not count twice
        answers = [llm.complete("easy"), llm.chat([ChatMessage(content="hard")]), list(llm.stream_complete("easy"))[-1]]
    llm.complete("easy")  # nobody listens
    assert costs.total_cost_usd == pytest.approx(sum(each.additional_kwargs["cost_usd"] for each in answers))
    assert costs.prompt_token_count == sum(each.additional_kwargs["prompt_tokens"] for each in answers)
    assert costs.completion_token_count == sum(each.additional_kwargs["completion_tokens"] for each in answers)
    assert costs.answer_count == 3
    assert sum(each.answers for each in costs.per_model.values()) == 3
    costs.reset_counts()
    assert (costs.total_cost_usd, costs.total_token_count, costs.answer_count, costs.per_model) == (0, 0, 0, {})


def test_two_handlers_count_apart(llm: EccosLLM) -> None:
    with CostCountingHandler() as outer:
        llm.complete("easy")
        with CostCountingHandler() as inner:
            llm.complete("easy")
        llm.complete("easy")
    assert (outer.answer_count, inner.answer_count) == (3, 1)


def test_no_count_is_lost_among_threads(llm: EccosLLM) -> None:
    event_count, threads = 200, 8
    from llama_index.core.instrumentation.events.llm import LLMChatEndEvent

    event = LLMChatEndEvent(messages=[], response=to_chat_response(planned(llm)))
    costs = CostCountingHandler()
    started = threading.Barrier(threads)

    def count() -> None:
        started.wait()
        for _ in range(event_count):
            costs.handle(event)

    workers = [threading.Thread(target=count) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert costs.answer_count == event_count * threads
    assert costs.total_cost_usd == pytest.approx(event_count * threads)


# --------------------------------------------------------------------------------------------------- router retriever


async def test_a_router_retriever_takes_the_retriever_that_the_query_needs(
    index: VectorStoreIndex, llm: EccosLLM
) -> None:
    retrievers = {"small": index.as_retriever(similarity_top_k=1), "large": index.as_retriever(similarity_top_k=4)}
    retriever = router_retriever(retrievers, llm)
    assert len(retriever.retrieve("easy")) == 1
    assert len(await retriever.aretrieve("hard")) == 4
    assert len(router_retriever(retrievers, llm, max_outputs=2).retrieve("easy")) == 4


def test_a_router_retriever_refuses_what_is_not_in_the_pool(index: VectorStoreIndex, llm: EccosLLM) -> None:
    with pytest.raises(ValueError, match="at least one retriever"):
        router_retriever({}, llm)
    with pytest.raises(ValueError, match="'smal', which is not in the pool"):
        router_retriever({"smal": index.as_retriever()}, llm).retrieve("easy")


# ------------------------------------------------------------------------------------------------- windows and output


def test_window_and_output_are_what_you_say(llm: EccosLLM) -> None:
    told = EccosLLM(router=llm.router, context_window=5_000, num_output=77).metadata
    assert (told.context_window, told.num_output) == (5_000, 77)
    assert EccosLLM(router=llm.router, max_tokens=50).metadata.num_output == 50
    assert EccosLLM(router=llm.router, max_tokens=50, num_output=77).metadata.num_output == 77
    with pytest.raises(ValueError, match="num_output"):
        EccosLLM(router=llm.router, num_output=0)
