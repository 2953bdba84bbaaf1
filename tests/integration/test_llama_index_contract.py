"""Every public method of LlamaIndex's `LLM` and `FunctionCallingLLM`, on a real server, beside LiteLLM's class.

`EccosLLM` may use the model `large` only, and LiteLLM's class asks the same model of the same server: same texts, same
tool calls, same stream of deltas.
"""

from __future__ import annotations

import asyncio
import base64
import json
import pickle
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from counting_encoder import CountingEncoder
from llama_index.core.base.llms.types import (
    AudioBlock,
    CacheControl,
    CachePoint,
    ChatMessage,
    CitableBlock,
    DocumentBlock,
    ImageBlock,
    LLMMetadata,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler, TokenCountingHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.litellm import LiteLLM
from pydantic import BaseModel
from served_pool import KEY, WAYS, pool_given_as, served_configuration

from eccos_core.errors import AttemptsExhausted, BackendError, EccosError, InfeasibleError, NoEligibleModelError
from eccos_core.router import Router
from eccos_core.testing import ModelServer
from eccos_integrations.llama_index import EccosLLM

pytestmark = pytest.mark.service

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
SOUND = b"RIFF\x00\x01\x02\xffWAVE"
SCRIPT = {
    "two calls": '[[tool add {"a": 1, "b": 2}]][[tool add {"a": 3, "b": 4}]]',
    "add 17 and 4": '[[tool add {"a": 17, "b": 4}]]',
    "a broken call": "[[broken-tool add]]",
}


class Song(BaseModel):
    """A song."""

    title: str
    seconds: int


def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


async def aadd(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


class KnownLiteLLM(LiteLLM):
    """LiteLLM's class for a model whose name is not in LiteLLM's own list of models that call tools."""

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(is_chat_model=True, is_function_calling_model=True, model_name=self.model)


TOOL = FunctionTool.from_defaults(fn=add, async_fn=aadd)


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with ModelServer(api_key=KEY, script=SCRIPT) as running:
        yield running


@pytest.fixture(scope="module")
def configuration(server: ModelServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with served_configuration(tmp_path_factory.mktemp("served"), server.url) as path:
        yield path


@pytest.fixture(scope="module", params=WAYS)
def pool(request: Any, configuration: Path) -> Iterator[dict[str, Any]]:
    with pool_given_as(request.param, configuration) as given:
        yield given


@pytest.fixture
def llm(pool: dict[str, Any]) -> EccosLLM:
    return EccosLLM(**pool)


@pytest.fixture
def router(llm: EccosLLM) -> Router:
    return llm.router


@pytest.fixture
def large(pool: dict[str, Any]) -> EccosLLM:
    return EccosLLM(**pool, model="large", temperature=0.1)


@pytest.fixture(scope="module")
def theirs(server: ModelServer) -> LiteLLM:
    return KnownLiteLLM(model="openai/large", api_base=server.url, api_key=KEY, max_retries=1)


def asked(text: str) -> list[ChatMessage]:
    return [ChatMessage(role=MessageRole.SYSTEM, content="Be brief."), ChatMessage(content=text)]


def deltas(responses: Any) -> list[str]:
    return [response.delta for response in responses if response.delta]


async def gathered(stream: AsyncIterator[Any]) -> list[Any]:
    return [response async for response in stream]


QUESTION = "[[say one two three four]][[tokens 40 4]]"


# ------------------------------------------------------------------------------------------ beside LiteLLM's class


def test_chat_says_what_litellm_says(large: EccosLLM, theirs: LiteLLM, server: ModelServer) -> None:
    ours = large.chat(asked(QUESTION))
    sent = server.last_request()
    other = theirs.chat(asked(QUESTION))
    assert ours.message.content == other.message.content == "one two three four"
    assert ours.message.role == other.message.role
    known = server.last_request()
    assert sent["messages"] == known["messages"]
    assert sent["temperature"] == known["temperature"]


def test_a_stream_has_the_deltas_of_litellm(large: EccosLLM, theirs: LiteLLM) -> None:
    ours, other = list(large.stream_chat(asked(QUESTION))), list(theirs.stream_chat(asked(QUESTION)))
    assert deltas(ours) == deltas(other) == ["one", " two", " three", " four"]
    assert [each.message.content for each in ours if each.delta] == [
        "one",
        "one two",
        "one two three",
        ours[-1].message.content,
    ]
    assert ours[-1].message.content == other[-1].message.content


async def test_the_asynchronous_twins_say_what_litellm_says(large: EccosLLM, theirs: LiteLLM) -> None:
    assert (await large.achat(asked(QUESTION))).message.content == "one two three four"
    ours = await gathered(await large.astream_chat(asked(QUESTION)))
    other = await gathered(await theirs.astream_chat(asked(QUESTION)))
    assert deltas(ours) == deltas(other)
    assert ours[-1].message.content == other[-1].message.content


async def test_completions_say_what_litellm_says(large: EccosLLM, theirs: LiteLLM) -> None:
    assert large.complete(QUESTION).text == theirs.complete(QUESTION).text
    assert (await large.acomplete(QUESTION)).text == (await theirs.acomplete(QUESTION)).text
    ours, other = list(large.stream_complete(QUESTION)), list(theirs.stream_complete(QUESTION))
    assert deltas(ours) == deltas(other)
    assert ours[-1].text == other[-1].text
    ours = await gathered(await large.astream_complete(QUESTION))
    other = await gathered(await theirs.astream_complete(QUESTION))
    assert deltas(ours) == deltas(other)
    assert ours[-1].text == other[-1].text


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("text", ["add 17 and 4", "two calls"])
def test_tool_calls_are_those_of_litellm(
    large: EccosLLM, theirs: LiteLLM, server: ModelServer, text: str, parallel: bool
) -> None:
    ours = large.chat_with_tools([TOOL], text, allow_parallel_tool_calls=parallel, tool_required=True)
    sent = server.last_request()
    other = theirs.chat_with_tools([TOOL], text, allow_parallel_tool_calls=parallel, tool_required=True)
    assert sent["tools"] == server.last_request()["tools"]
    assert sent["tool_choice"] == server.last_request()["tool_choice"] == "required"
    assert large.get_tool_calls_from_response(ours) == theirs.get_tool_calls_from_response(other)
    assert len(large.get_tool_calls_from_response(ours)) == (2 if parallel and text == "two calls" else 1)


async def test_streamed_tool_calls_are_those_of_litellm(large: EccosLLM, theirs: LiteLLM) -> None:
    for text in ("add 17 and 4", "two calls"):
        ours = list(large.stream_chat_with_tools([TOOL], text, allow_parallel_tool_calls=True))
        other = list(theirs.stream_chat_with_tools([TOOL], text, allow_parallel_tool_calls=True))
        found = large.get_tool_calls_from_response(ours[-1])
        assert found == theirs.get_tool_calls_from_response(other[-1])
        later = await gathered(await large.astream_chat_with_tools([TOOL], text, allow_parallel_tool_calls=True))
        assert large.get_tool_calls_from_response(later[-1]) == found
        assert len(large.get_tool_calls_from_response(ours[0])) == 1


async def test_predict_and_call_gives_what_litellm_gives(large: EccosLLM, theirs: LiteLLM) -> None:
    ours, other = large.predict_and_call([TOOL], "add 17 and 4"), theirs.predict_and_call([TOOL], "add 17 and 4")
    assert ours.response == other.response == "21"
    assert (await large.apredict_and_call([TOOL], "add 17 and 4")).response == "21"
    both = await large.apredict_and_call([TOOL], "two calls", allow_parallel_tool_calls=True)
    assert both.response == "3\n\n7"


# ------------------------------------------------------------------------------------------------ what comes with it


def test_a_response_says_who_answered_at_what_cost_and_why(llm: EccosLLM, router: Router) -> None:
    response = llm.chat(asked(QUESTION))
    told = response.additional_kwargs
    assert told["model"] == "small"
    assert told["cost_usd"] == pytest.approx(40 * 1.0e-7 + 4 * 4.0e-7)
    assert told["predicted_quality"] > 0.5
    assert response.raw["usage"]["total_tokens"] == told["total_tokens"] == 44
    assert response.raw["eccos"]["decision_id"] == told["decision_id"]
    router.record(told["decision_id"], 1.0)
    assert llm.complete(QUESTION).additional_kwargs["model"] == "small"
    streamed = list(llm.stream_chat(asked(QUESTION)))
    assert "decision_id" not in streamed[0].additional_kwargs
    assert streamed[-1].additional_kwargs["cost_usd"] == pytest.approx(told["cost_usd"])
    assert list(llm.stream_complete(QUESTION))[-1].additional_kwargs["decision_id"]


def test_metadata_is_true_for_the_models_that_may_answer(router: Router, llm: EccosLLM) -> None:
    assert llm.metadata.is_chat_model
    assert llm.metadata.is_function_calling_model
    assert llm.metadata.model_name == "eccos"
    small = llm.only("small")
    assert not small.metadata.is_function_calling_model
    assert small.metadata.model_name == "small"
    assert small.router is router
    assert EccosLLM(router=router, max_tokens=77).metadata.num_output == 77


def test_callbacks_and_instrumentation_see_every_call(router: Router) -> None:
    seen: list[str] = []

    class Listening(BaseEventHandler):
        def handle(self, event: Any, **_: Any) -> None:
            seen.append(event.class_name())

    counter, debug = TokenCountingHandler(tokenizer=str.split), LlamaDebugHandler(print_trace_on_end=False)
    llm = EccosLLM(router=router, callback_manager=CallbackManager([counter, debug]))
    dispatcher, handler = get_dispatcher(), Listening()
    dispatcher.add_event_handler(handler)
    try:
        llm.chat(asked(QUESTION))
        list(llm.stream_chat(asked(QUESTION)))
        llm.complete(QUESTION)
    finally:
        dispatcher.event_handlers.remove(handler)
    assert counter.prompt_llm_token_count == 3 * 40
    assert counter.completion_llm_token_count == 3 * 4
    assert len(debug.get_event_pairs(CBEventType.LLM)) == 3
    assert seen.count("LLMChatStartEvent") == seen.count("LLMChatEndEvent") == 2
    assert "LLMChatInProgressEvent" in seen
    assert "LLMCompletionEndEvent" in seen


# ------------------------------------------------------------------------------------------------ structured output


async def test_structured_output_in_every_way(llm: EccosLLM) -> None:
    prompt, song = PromptTemplate("A song about {topic}."), Song(title="text", seconds=1)
    assert llm.structured_predict(Song, prompt, topic="rain") == song
    assert await llm.astructured_predict(Song, prompt, topic="rain") == song
    assert list(llm.stream_structured_predict(Song, prompt, topic="rain"))[-1] == song
    streamed = [each async for each in await llm.astream_structured_predict(Song, prompt, topic="rain")]
    assert streamed[-1] == song
    structured = llm.as_structured_llm(Song)
    response = structured.complete("A song.")
    assert response.raw == song
    assert json.loads(response.text) == song.model_dump()
    assert (await structured.achat(asked("A song."))).raw == song
    assert list(structured.stream_chat(asked("A song.")))[-1].raw == song


async def test_predictions_from_prompts(llm: EccosLLM) -> None:
    prompt = PromptTemplate("[[say {word} {word}]]")
    assert llm.predict(prompt, word="yes") == "yes yes"
    assert await llm.apredict(prompt, word="yes") == "yes yes"
    assert list(llm.stream(prompt, word="yes"))[:2] == ["yes", " yes"]
    assert "".join([piece async for piece in await llm.astream(prompt, word="yes")]) == "yes yes"


def test_a_model_without_tools_predicts_and_structures_by_text(router: Router) -> None:
    """LlamaIndex falls back to text where `metadata` says that no candidate calls tools."""
    small = EccosLLM(router=router, model="small")
    said, song = PromptTemplate("[[say {song}]]"), '{"title": "rain", "seconds": 9}'
    assert small.structured_predict(Song, said, song=song) == Song(title="rain", seconds=9)


# ------------------------------------------------------------------------------------------------------ tools and pool


def test_a_tool_goes_to_a_model_that_calls_tools(llm: EccosLLM) -> None:
    response = llm.chat_with_tools([TOOL], "add 17 and 4")
    assert response.additional_kwargs["model"] == "caller"


def test_allowing_parallel_calls_demands_nothing_of_a_model(llm: EccosLLM, server: ModelServer) -> None:
    response = llm.chat_with_tools([TOOL], "two calls", allow_parallel_tool_calls=True)
    assert response.additional_kwargs["model"] == "caller"
    assert "parallel_tool_calls" not in server.last_request()


def test_a_tool_call_and_its_result_go_back_to_the_model(llm: EccosLLM, server: ModelServer) -> None:
    first = llm.chat_with_tools([TOOL], "add 17 and 4")
    call = llm.get_tool_calls_from_response(first)[0]
    result = ChatMessage(role="tool", content="21", additional_kwargs={"tool_call_id": call.tool_id})
    history = [ChatMessage(content="add 17 and 4"), first.message, result]
    before = [message.model_copy(deep=True) for message in history]
    answer = llm.chat_with_tools([TOOL], chat_history=history)
    assert answer.message.content == "The tool said: 21"
    assert history == before
    sent = server.last_request()["messages"]
    assert sent[1]["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a": 17, "b": 4}'}
    assert sent[1].get("content") is None
    assert sent[2] == {"role": "tool", "content": "21", "tool_call_id": call.tool_id}


def test_a_tool_choice_by_name_is_one_of_the_tools(llm: EccosLLM, server: ModelServer) -> None:
    llm.chat_with_tools([TOOL], "add 17 and 4", tool_choice="add")
    assert server.last_request()["tool_choice"] == {"type": "function", "function": {"name": "add"}}
    with pytest.raises(ValueError, match="did you mean 'add'"):
        llm.chat_with_tools([TOOL], "add 17 and 4", tool_choice="ad")


def test_broken_arguments_are_empty_and_logged(large: EccosLLM, caplog: pytest.LogCaptureFixture) -> None:
    response = large.chat_with_tools([TOOL], "a broken call")
    assert large.get_tool_calls_from_response(response)[0].tool_kwargs == {}
    assert "no JSON object" in caplog.text


def test_no_tool_call_where_one_is_needed_says_what_was_said_instead(llm: EccosLLM) -> None:
    response = llm.chat_with_tools([TOOL], "[[say no]]")
    assert llm.get_tool_calls_from_response(response, error_on_no_tool_call=False) == []
    with pytest.raises(ValueError, match="caller answered: 'no'"):
        llm.get_tool_calls_from_response(response)


# ------------------------------------------------------------------------------------------------------------ content


def test_every_kind_of_content_is_translated(llm: EccosLLM, server: ModelServer, tmp_path: Path) -> None:
    picture = tmp_path / "dot.png"
    picture.write_bytes(PIXEL)
    encoded = base64.b64encode(PIXEL).decode()
    blocks = [
        TextBlock(text="What is this?"),
        ImageBlock(url="https://example.org/cat.png", detail="low"),
        ImageBlock(path=picture),
        ImageBlock(image=PIXEL),
        AudioBlock(audio=SOUND, format="wav"),
        DocumentBlock(data=b"%PDF-1.4", document_mimetype="application/pdf", title="paper"),
        CitableBlock(title="t", source="s", content="cite me"),
        CachePoint(cache_control=CacheControl(type="ephemeral")),
        ThinkingBlock(content="not for a model"),
    ]
    response = llm.chat([ChatMessage(blocks=blocks)])
    assert response.additional_kwargs["model"] == "large"
    text, first, second, third, audio, document, cited = server.last_request()["messages"][0]["content"]
    assert text == {"type": "text", "text": "What is this?"}
    assert first == {"type": "image_url", "image_url": {"url": "https://example.org/cat.png", "detail": "low"}}
    assert second["image_url"]["url"] == third["image_url"]["url"] == f"data:image/png;base64,{encoded}"
    assert audio["input_audio"] == {"data": base64.b64encode(SOUND).decode(), "format": "wav"}
    assert document["file"]["file_data"] == f"data:application/pdf;base64,{base64.b64encode(b'%PDF-1.4').decode()}"
    assert cited["text"] == "cite me"
    assert cited["cache_control"]["type"] == "ephemeral"


def test_only_what_belongs_to_a_message_is_sent(llm: EccosLLM, server: ModelServer) -> None:
    answer = ChatMessage(role="model", content="hi", additional_kwargs={"decision_id": "x", "usage": {"a": 1}})
    llm.chat([ChatMessage(content="hello"), answer, ChatMessage(content="and?", additional_kwargs={"name": "eve"})])
    sent = server.last_request()["messages"]
    assert sent[1] == {"role": "assistant", "content": "hi"}
    assert sent[2]["name"] == "eve"


def test_tool_call_blocks_of_other_llms_are_understood(llm: EccosLLM, server: ModelServer) -> None:
    block = ToolCallBlock(tool_call_id="c1", tool_name="add", tool_kwargs={"a": 1, "b": 2})
    called = ChatMessage(role="assistant", blocks=[block])
    result = ChatMessage(role="tool", content="3", additional_kwargs={"tool_call_id": "c1"})
    llm.chat([ChatMessage(content="1 and 2?"), called, result])
    function = server.last_request()["messages"][1]["tool_calls"][0]["function"]
    assert json.loads(function["arguments"]) == {"a": 1, "b": 2}


# ---------------------------------------------------------------------------------------------------------- bad input


def test_what_cannot_be_asked_is_a_value_error_with_a_way_out(llm: EccosLLM, router: Router) -> None:
    with pytest.raises(ValueError, match="give at least one"):
        llm.chat([])
    with pytest.raises(ValueError, match="every message is empty"):
        llm.complete("")
    with pytest.raises(ValueError, match="EccosLLM needs a router"):
        EccosLLM()
    with pytest.raises(ValueError, match="did you mean 'temperature'"):
        EccosLLM(router=router, temprature=1)
    with pytest.raises(ValueError, match=r"unknown model 'smal'; did you mean 'small'\?"):
        llm.only("smal").complete("hello")
    with pytest.raises(ValueError, match=r"must be an eccos_core\.Router"):
        EccosLLM(router="eccos.yaml")
    with pytest.raises(EccosError, match=r"missing\.yaml"):
        EccosLLM(config="missing.yaml")


async def test_a_tool_that_no_model_can_call_says_so(router: Router) -> None:
    small = EccosLLM(router=router, model="small")
    with pytest.raises(NoEligibleModelError, match="small: cannot do tools") as caught:
        small.chat_with_tools([TOOL], "add 17 and 4")
    assert isinstance(caught.value, ValueError)
    with pytest.raises(NoEligibleModelError):
        await small.achat_with_tools([TOOL], "add 17 and 4")


def test_an_unmet_floor_names_the_attainable(llm: EccosLLM) -> None:
    with pytest.raises(InfeasibleError) as caught:
        llm.chat(asked("hello"), min_quality=0.99)
    assert isinstance(caught.value, ValueError)
    assert caught.value.attainable < 0.99


async def test_faults_of_a_model_are_errors_of_eccos(router: Router) -> None:
    llm = EccosLLM(router=router, model="small")
    with pytest.raises((BackendError, AttemptsExhausted)):
        llm.complete("[[status 400]]")
    with pytest.raises(ValueError, match="maximum context length"):
        await llm.acomplete("[[context]]")
    with pytest.raises(EccosError):
        list(llm.stream_complete("[[say a b c d]][[cut 2]]"))


# -------------------------------------------------------------------------------------------------- copies and pickles


def test_an_llm_can_be_stored_copied_and_pickled(configuration: Path, router: Router) -> None:
    llm = EccosLLM(config=configuration, temperature=0.3, deny="large")
    stored = llm.to_dict()
    assert KEY not in json.dumps(stored, default=str)
    assert EccosLLM.from_dict(stored).temperature == 0.3
    copied = llm.model_copy(deep=True)
    assert copied.router is llm.router
    again = pickle.loads(pickle.dumps(llm))
    assert again.deny == {"large"}
    assert again.complete("[[say hi]]").text == "hi"
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(EccosLLM(router=router))


# -------------------------------------------------------------------------------------------------------------- async


@pytest.mark.parametrize("way", ["achat", "acomplete", "astream_chat", "astream_complete", "achat_with_tools"])
async def test_no_asynchronous_method_holds_up_the_event_loop(llm: EccosLLM, way: str) -> None:
    """Eight calls of 0.4 s each, answered meanwhile by a server of its own process, end together."""
    text = "[[say a b]][[latency 0.4]]"
    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "achat": lambda: llm.achat(asked(text)),
        "acomplete": lambda: llm.acomplete(text),
        "astream_chat": lambda: drained(llm.astream_chat(asked(text))),
        "astream_complete": lambda: drained(llm.astream_complete(text)),
        "achat_with_tools": lambda: llm.achat_with_tools([TOOL], text),
    }
    await calls[way]()
    order: list[str] = []

    async def one() -> None:
        order.append("begun")
        await calls[way]()
        order.append("ended")

    await asyncio.gather(*(one() for _ in range(8)))
    assert order == ["begun"] * 8 + ["ended"] * 8


async def drained(stream: Awaitable[AsyncIterator[Any]]) -> list[Any]:
    return await gathered(await stream)


async def test_a_stream_that_is_left_gives_its_slot_back(router: Router) -> None:
    llm = EccosLLM(router=router, model="large")
    async for _ in await llm.astream_chat(asked("[[say a b c d e f]]")):
        break
    for _ in llm.stream_chat(asked("[[say a b c d e f]]")):
        break
    for _ in range(100):
        await asyncio.sleep(0.01)
        if sum(model.in_flight for model in router.status().workload.models) == 0:
            return
    raise AssertionError("a slot is still held")


async def test_a_window_decides_together_what_is_asked_together(router: Router) -> None:
    counting = CountingEncoder(router.parts.encoder)
    counted = Router.from_parts(replace(router.parts, encoder=counting))
    llm = EccosLLM(router=counted, window_s=0.05)
    answers = await asyncio.gather(*(llm.acomplete(f"[[say {place}]]") for place in range(12)))
    assert [answer.text for answer in answers] == [str(place) for place in range(12)]
    assert sum(counting.sizes) == 12
    assert max(counting.sizes) > 1
    counting.sizes.clear()
    plain = EccosLLM(router=counted)
    await asyncio.gather(*(plain.acomplete(f"[[say {place}]]") for place in range(4)))
    assert counting.sizes == [1] * 4
