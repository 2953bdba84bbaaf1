"""The same contract on real models in this process: the pocket pool that comes with eccos."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from served_pool import WAYS, pool_given_as

from eccos_core.pocket import pool_config_path
from eccos_integrations.llama_index import EccosEmbedding, EccosLLM, EccosSelector

pytestmark = pytest.mark.service

QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module", params=WAYS)
def pool(request: Any) -> Iterator[dict[str, Any]]:
    with pool_given_as(request.param, pool_config_path()) as given:
        yield given


@pytest.fixture
def llm(pool: dict[str, Any]) -> EccosLLM:
    return EccosLLM(**pool, model="pocket-large", temperature=0.0, max_tokens=16)


async def test_every_way_of_asking_gives_one_answer(llm: EccosLLM) -> None:
    messages = [ChatMessage(content=QUESTION)]
    prompt = PromptTemplate("{question}")
    streamed, completed = list(llm.stream_chat(messages)), list(llm.stream_complete(QUESTION))
    astreamed = [each async for each in await llm.astream_chat(messages)]
    acompleted = [each async for each in await llm.astream_complete(QUESTION)]
    answers = {
        "chat": llm.chat(messages).message.content,
        "achat": (await llm.achat(messages)).message.content,
        "complete": llm.complete(QUESTION).text,
        "acomplete": (await llm.acomplete(QUESTION)).text,
        "stream_chat": streamed[-1].message.content,
        "stream_complete": completed[-1].text,
        "astream_chat": astreamed[-1].message.content,
        "astream_complete": acompleted[-1].text,
        "predict": llm.predict(prompt, question=QUESTION),
        "apredict": await llm.apredict(prompt, question=QUESTION),
        "stream": "".join(llm.stream(prompt, question=QUESTION)),
        "astream": "".join([piece async for piece in await llm.astream(prompt, question=QUESTION)]),
    }
    assert set(answers.values()) == {answers["chat"]}, answers
    assert "Paris" in str(answers["chat"])
    for responses in (streamed, completed, astreamed, acompleted):
        assert "".join(response.delta or "" for response in responses) == answers["chat"]
        assert responses[-1].additional_kwargs["model"] == "pocket-large"
        assert responses[-1].additional_kwargs["completion_tokens"] > 0


@pytest.mark.parametrize("mode", ["compact", "refine", "tree_summarize", "accumulate"])
def test_an_engine_runs_on_models_with_a_tiny_window(pool: dict[str, Any], mode: Any) -> None:
    """They hold 256 tokens, less than some of LlamaIndex's own prompts. They do not read what was retrieved."""
    documents = [Document(text="Paris is the capital of France.")]
    index = VectorStoreIndex.from_documents(documents, embed_model=EccosEmbedding())
    llm = EccosLLM(**pool)
    assert str(index.as_query_engine(llm=llm, response_mode=mode).query(QUESTION))
    chat = index.as_chat_engine(chat_mode="simple", llm=llm)
    assert "Paris" in str(chat.chat(QUESTION))


async def test_many_questions_at_once_are_answered_and_routed_together(pool: dict[str, Any]) -> None:
    llm = EccosLLM(**pool, window_s=0.05, max_tokens=16)
    questions = [f"What is {number} + 3?" for number in range(12)] + [QUESTION]
    answers = await asyncio.gather(*(llm.acomplete(question) for question in questions))
    assert all(answer.additional_kwargs["decision_id"] for answer in answers)
    assert all(answer.additional_kwargs["cost_usd"] > 0 for answer in answers)


def test_the_selector_tells_models_apart_by_what_they_have_shown(pool: dict[str, Any]) -> None:
    selector = EccosSelector(**pool, min_quality=0.7)
    names = [model.name for model in selector.router.models]
    select: Callable[[str], Any] = lambda question: selector.select(names, question).selections[0]  # noqa: E731
    easy, hard = select(QUESTION), select("What is 437 + 285?")
    assert easy.quality >= 0.7
    assert hard.quality >= 0.7
    assert easy.cost_usd <= hard.cost_usd
