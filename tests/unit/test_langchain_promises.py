"""What LangChain and its users rely on: profile, counting, fallbacks, reasoning, caches, schemas, threads."""

from __future__ import annotations

import inspect
import typing
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelRefusalMiddleware
from langchain_core.caches import InMemoryCache
from langchain_core.exceptions import ModelRefusalError, OutputParserException
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage, trim_messages
from langchain_core.tools import tool
from pydantic import BaseModel
from two_models import two_models

from eccos_core.backends.litellm.backend import LiteLLMBackend
from eccos_core.backends.litellm.load_balancer import SimpleDeployment
from eccos_core.config import TenantConfig
from eccos_core.domain import AUTHOR, Completion, Model, QualityFloor
from eccos_core.errors import BackendError
from eccos_core.router import Router
from eccos_core.routing.tenants import Tenants
from eccos_integrations.langchain import ChatEccos, EccosRouter, FeedbackRecorder, RoutedRunnable

SCHEMA = {"title": "joke", "type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}


class Joke(BaseModel):
    """A joke."""

    a: str


@tool
def add(a: int) -> int:
    """Adds."""
    return a


def answer(text: str = "", **fields: Any) -> Completion:
    message = {"role": "assistant", "content": text, **fields.pop("message", {})}
    given = {"input_tokens": 5, "output_tokens": 3, "cost_usd": 0.1, "latency_s": 0.2, "finish_reason": "stop"}
    return Completion(text=text, model="", message=message, **{**given, **fields})


def model_that_answers(*answers: Any, **settings: Any) -> ChatEccos:
    return ChatEccos(router=two_models({"small": answers, "large": answers})[0], **settings)


# ------------------------------------------------------------------------------------------------ profile and counting


def test_the_profile_is_that_of_the_models_that_may_answer() -> None:
    router, _ = two_models()
    assert ChatEccos(router=router).profile == {
        "tool_calling": True,
        "tool_choice": True,
        "structured_output": True,
        "image_inputs": True,
        "max_input_tokens": 2000,  # what every model of the pool can hold
    }
    large = ChatEccos(router=router, model="large").profile
    assert large is not None
    assert large["max_input_tokens"] == 8000
    small = ChatEccos(router=router, deny="large").profile
    assert small is not None
    assert not small["tool_calling"]
    given = ChatEccos(router=router, profile={"max_input_tokens": 7}).profile
    assert given == {"max_input_tokens": 7}


def test_counting_is_not_asking() -> None:
    model = ChatEccos(router=two_models()[0])
    assert model.get_num_tokens_from_messages([]) < model.get_num_tokens_from_messages([HumanMessage("")])
    messages = [SystemMessage("You joke."), HumanMessage("a " * 50), AIMessage("b"), HumanMessage("and now?")]
    kept = trim_messages(messages, max_tokens=30, token_counter=model, include_system=True, start_on="human")
    assert [message.content for message in kept] == ["You joke.", "and now?"]


# ------------------------------------------------------------------------------------------------ wrappers of LangChain


def test_fallbacks_hand_tools_and_schemas_to_every_model() -> None:
    down = BackendError("small", "down", retryable=False, kind="unavailable")
    call = answer(message={"tool_calls": [CALL]})
    broken, whole = model_that_answers(down), model_that_answers(call)
    with_tools = broken.with_fallbacks([whole]).bind_tools([add])
    assert with_tools.invoke("easy").tool_calls[0]["args"] == {"a": 1}
    structured = broken.with_fallbacks([model_that_answers(answer('{"a": "x"}'))])
    assert structured.with_structured_output(Joke, method="json_schema").invoke("easy") == Joke(a="x")


@pytest.mark.parametrize("kind", [ChatEccos, EccosRouter, RoutedRunnable, FeedbackRecorder])
def test_the_types_of_every_method_can_be_read(kind: type) -> None:
    """LangChain's `with_fallbacks` reads them, to find the methods that return a Runnable."""
    ours = [each for name, each in inspect.getmembers(kind, callable) if not name.startswith("_")]
    ours = [each for each in ours if getattr(each, "__module__", "").startswith("eccos_integrations")]
    assert ours
    for method in ours:
        assert typing.get_type_hints(method)


# ------------------------------------------------------------------------------------------------ reasoning


def test_reasoning_goes_back_to_the_model_that_wrote_it_and_to_no_other() -> None:
    thinking = [{"type": "thinking", "thinking": "hm", "signature": "SIG"}]
    said = answer(message={"tool_calls": [CALL], "reasoning_content": "hm", "thinking_blocks": thinking})
    router, backend = two_models(
        {"small": ["fine"], "large": [lambda asked: said if len(asked.messages) == 1 else "fine"]}
    )
    model = ChatEccos(router=router)
    for first in (model.invoke("hard", model="large"), sum_up(model, "hard")):
        history = [HumanMessage("hard"), first, ToolMessage("1", tool_call_id="c1")]
        model.invoke(history, model="large")
        sent = backend.calls[-1][1].messages[1]
        assert (sent["reasoning_content"], sent["thinking_blocks"]) == ("hm", thinking)
        model.invoke(history, model="small")
        other = backend.calls[-1][1].messages[1]
        assert not other.keys() & {"reasoning_content", "thinking_blocks", AUTHOR}
        assert AUTHOR not in sent
        assert other["tool_calls"][0]["id"] == "c1"


def sum_up(model: ChatEccos, question: str) -> AIMessage:
    first, *rest = model.stream(question, model="large")
    for chunk in rest:
        first = first + chunk
    return first


def test_a_fallback_gets_no_reasoning_of_the_model_that_failed() -> None:
    down = BackendError("large", "down", retryable=True, kind="unavailable")
    router, backend = two_models({"small": ["fine"], "large": [down]})
    wrote = AIMessage(
        "a",
        additional_kwargs={"reasoning_content": "hm"},
        response_metadata={"model_provider": "eccos", "model_name": "large"},
    )
    ChatEccos(router=router).invoke([HumanMessage("hard"), wrote, HumanMessage("hard")])
    sent = {name: request.messages[1] for name, request in backend.calls}
    assert sent["large"]["reasoning_content"] == "hm"
    assert sent["small"] == {"role": "assistant", "content": "a"}


def test_reasoning_of_a_model_outside_the_pool_is_not_sent() -> None:
    router, backend = two_models()
    wrote = AIMessage("a", additional_kwargs={"reasoning_content": "hm"}, response_metadata={"model_name": "small"})
    ChatEccos(router=router).invoke([HumanMessage("easy"), wrote, HumanMessage("easy")])
    assert backend.calls[-1][1].messages[1] == {"role": "assistant", "content": "a"}


# ------------------------------------------------------------------------------------------------ caches


def test_two_settings_never_share_an_answer_of_the_cache() -> None:
    cache = InMemoryCache()
    router, backend = two_models()
    stricter, _ = two_models(policy=QualityFloor(0.7))
    decision = router.decide("hard")
    models = [
        ChatEccos(router=router, cache=cache),
        ChatEccos(router=router, cache=cache, stop=["\n"]),
        ChatEccos(router=router, cache=cache, temperature=0.5),
        ChatEccos(router=router, cache=cache, tenant="t"),
        ChatEccos(router=stricter, cache=cache),
    ]
    calls: list[tuple[ChatEccos, dict[str, Any]]] = [(each, {}) for each in models]
    calls += [(models[0], {"stop": ["END"]}), (models[1], {"stop": []}), (models[0], {"decision": decision})]
    for model, given in calls:
        assert "cached" not in model.invoke("easy", **given).response_metadata
    for model, given in calls:
        assert model.invoke("easy", **given).response_metadata["cached"]
    assert len(backend.calls) == len(calls) - 1  # one has a router of its own


def test_names_in_a_cache_key_are_sorted() -> None:
    model = ChatEccos(router=two_models()[0], deny={"b", "a", "c"})
    assert "['a', 'b', 'c']" in model._get_llm_string()
    assert "['a', 'b', 'c']" in ChatEccos(router=model.router)._get_llm_string(allow={"c", "b", "a"})


def test_two_pools_of_the_same_names_are_told_apart_without_their_keys() -> None:
    pool = (Model("m", 0.0, 0.0),)

    def fingerprint(**parameters: str) -> str:
        return LiteLLMBackend({"m": [SimpleDeployment("openai/m", parameters)]}, pool).fingerprint

    first = fingerprint(api_base="http://a", api_key="sk-1234567890abcdef")
    assert first == fingerprint(api_base="http://a", api_key="sk-fedcba0987654321")
    assert first != fingerprint(api_base="http://b", api_key="sk-1234567890abcdef")


def test_a_cached_answer_costs_nothing_and_says_so() -> None:
    router, _ = two_models()
    model = ChatEccos(router=router, cache=InMemoryCache())
    first, *hits = (model.invoke("easy").response_metadata for _ in range(3))
    assert first["cost_usd"] > 0
    for hit in hits:
        assert hit == {
            "model_name": "small",
            "model_provider": "eccos",
            "finish_reason": "stop",
            "cached": True,
            "cost_usd": 0.0,
            "cached_decision_id": first["decision_id"],
        }
    FeedbackRecorder(router).record(model.invoke("easy"), 1.0)  # labels the decision that led to the answer


def test_a_cost_that_is_an_estimate_is_marked() -> None:
    said = answer("yes", estimated=True)
    assert model_that_answers(said).invoke("easy").response_metadata["estimated"] is True
    assert model_that_answers(answer("yes")).invoke("easy").response_metadata["estimated"] is False


# ------------------------------------------------------------------------------------------------ schemas


@pytest.mark.parametrize(
    "schema",
    [
        {"name": "joke", "strict": True, "schema": SCHEMA},
        {"type": "json_schema", "json_schema": {"name": "joke", "strict": True, "schema": SCHEMA}},
        {"type": "function", "function": {"name": "joke", "strict": True, "parameters": SCHEMA}},
        {"type": "function", "name": "joke", "strict": True, "parameters": SCHEMA},
    ],
)
def test_every_form_of_a_schema_reaches_the_model(schema: dict[str, Any]) -> None:
    call = {**CALL, "function": {"name": "joke", "arguments": '{"a": "x"}'}}
    router, backend = two_models({"small": [""], "large": [answer('{"a": "x"}', message={"tool_calls": [call]})]})
    model = ChatEccos(router=router)
    assert model.with_structured_output(schema, method="json_schema").invoke("easy") == {"a": "x"}
    asked = backend.calls[-1][1].parameters["response_format"]["json_schema"]
    assert asked == {"name": "joke", "strict": True, "schema": SCHEMA}
    assert model.with_structured_output(schema).invoke("easy") == {"a": "x"}
    function = backend.calls[-1][1].parameters["tools"][0]["function"]
    assert function == {"name": "joke", "strict": True, "parameters": SCHEMA}


def test_a_schema_without_properties_is_sent_whole() -> None:
    union = {"title": "either", "description": "One of two.", "anyOf": [{"type": "object"}, {"type": "array"}]}
    router, backend = two_models({"small": [""], "large": ["[1]"]})
    assert ChatEccos(router=router).with_structured_output(union, method="json_schema").invoke("easy") == [1]
    asked = backend.calls[-1][1].parameters["response_format"]["json_schema"]
    assert asked == {"name": "either", "description": "One of two.", "schema": {"anyOf": union["anyOf"]}}


def test_a_dictionary_that_describes_no_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="none of them describes the answer"):
        model_that_answers("x").with_structured_output({"name": "joke", "strict": True})


def test_a_tool_that_the_provider_runs_is_passed_on() -> None:
    router, backend = two_models()
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}
    ChatEccos(router=router).bind_tools([search, add]).invoke("easy")
    tools = backend.calls[-1][1].parameters["tools"]
    assert tools[0] == search
    assert tools[1]["function"]["name"] == "add"


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
@pytest.mark.parametrize(
    ("said", "error", "match"),
    [
        (answer('{"a": "x"}', finish_reason="length"), OutputParserException, "was cut at its longest length"),
        (answer('{"a": "x"}', finish_reason="content_filter"), ModelRefusalError, "a content filter cut"),
        (answer(message={"refusal": "I will not"}), ModelRefusalError, "refused to answer: I will not"),
        (answer(), OutputParserException, "the answer is empty"),
    ],
)
def test_an_answer_that_is_not_whole_is_an_error(said: Completion, error: Any, match: str, method: Any) -> None:
    model = model_that_answers(said)
    with pytest.raises(error, match=match):
        model.with_structured_output(Joke, method=method).invoke("easy")
    with pytest.raises(error, match=match):
        list(model.with_structured_output(Joke, method=method).stream("easy"))
    raw = model.with_structured_output(Joke, method=method, include_raw=True).invoke("easy")
    assert isinstance(raw, dict)
    assert raw["parsed"] is None
    assert isinstance(raw["parsing_error"], error)


@pytest.mark.parametrize(
    ("said", "text"),
    [(answer(message={"refusal": "I will not"}), "I will not"), (answer("half", finish_reason="content_filter"), "")],
)
def test_a_refusal_is_a_block_that_langchains_middleware_finds(said: Completion, text: str) -> None:
    model = model_that_answers(said)
    block = model.invoke("easy").content_blocks[-1]
    assert block == {"type": "refusal", "refusal": text}
    assert sum_up(model, "easy").content_blocks[-1] == block
    assert [each["type"] for each in model_that_answers("fine").invoke("easy").content_blocks] == ["text"]
    with pytest.raises(ModelRefusalError):
        create_agent(model, middleware=[ModelRefusalMiddleware()]).invoke({"messages": [HumanMessage("easy")]})


async def test_an_answer_that_is_not_whole_is_an_error_asynchronously() -> None:
    model = model_that_answers(answer('{"a": "x"}', finish_reason="length"), answer())
    for match in ("was cut", "is empty"):
        with pytest.raises(OutputParserException, match=match):
            await model.with_structured_output(SCHEMA, method="json_schema").ainvoke("hard")


def test_a_call_with_broken_arguments_is_an_error() -> None:
    call = {**CALL, "function": {"name": "Joke", "arguments": '{"a": '}}
    with pytest.raises(OutputParserException, match="'Joke' with arguments that are no JSON object"):
        model_that_answers(answer(message={"tool_calls": [call]})).with_structured_output(Joke).invoke("easy")


# ------------------------------------------------------------------------------------------------ calls


@pytest.mark.parametrize("given", [7, 0, UUID(int=1), "7"])
def test_a_thread_may_be_a_number_or_a_uuid(given: Any) -> None:
    router, backend = two_models()
    model = ChatEccos(router=router)
    model.invoke("easy", config={"configurable": {"thread_id": given}})
    model.invoke("easy", session_id=given)
    ChatEccos(router=router, session_id=given).invoke("easy")
    assert [request.session_id for _, request in backend.calls] == [str(given)] * 3


def test_the_frameworks_own_arguments_are_not_for_the_provider() -> None:
    router, backend = two_models()
    list(ChatEccos(router=router).stream("easy", stream_usage=True))
    assert dict(backend.calls[-1][1].parameters) == {}


@pytest.mark.parametrize(("wrong", "meant"), [("min_qualty", "min_quality"), ("temprature", "temperature")])
def test_a_misspelled_argument_of_a_call_is_refused(wrong: str, meant: str) -> None:
    router, backend = two_models()
    for model in (ChatEccos(router=router), EccosRouter(router=router)):
        with pytest.raises(ValueError, match=f"unknown parameter '{wrong}'; did you mean '{meant}'"):
            model.invoke("easy", **{wrong: 0.9})
    ChatEccos(router=router).invoke("easy", top_k=3)  # a parameter of its own
    ChatEccos(router=router, model_kwargs={wrong: 0.9}).invoke("easy")
    assert [dict(request.parameters) for _, request in backend.calls] == [{"top_k": 3}, {wrong: 0.9}]


def test_log_probabilities_are_in_the_metadata() -> None:
    logprobs = {"content": [{"token": "ok", "logprob": -0.1}]}
    model = model_that_answers(answer("ok", logprobs=logprobs))
    assert model.invoke("easy", logprobs=True).response_metadata["logprobs"] == logprobs
    assert list(model.stream("easy", logprobs=True))[-1].response_metadata["logprobs"] == logprobs


@pytest.mark.parametrize(
    "block",
    [
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
        {"type": "web_search_call", "id": "w"},
        {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "c"},
        {"type": "tool_use", "name": "f", "input": {}, "id": "c"},
        {"type": "thinking", "thinking": "hm", "signature": "x"},
    ],
)
def test_a_block_in_the_form_of_one_provider_is_not_sent_to_another(block: dict[str, Any]) -> None:
    router, backend = two_models()
    earlier = AIMessage([block, {"type": "text", "text": "t"}])
    ChatEccos(router=router).invoke([HumanMessage("easy"), earlier, HumanMessage("easy")])
    assert backend.calls[-1][1].messages[1] == {"role": "assistant", "content": "t"}


def test_a_call_in_a_block_is_sent_where_it_was_answered() -> None:
    router, backend = two_models()
    call = {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "c"}
    ChatEccos(router=router).invoke([HumanMessage("easy"), AIMessage([call]), ToolMessage("1", tool_call_id="c")])
    assert backend.calls[-1][1].messages[1]["tool_calls"][0]["id"] == "c"


def test_media_of_google_is_understood_and_other_content_is_refused() -> None:
    router, backend = two_models()
    model = ChatEccos(router=router)
    model.invoke([HumanMessage([{"type": "media", "data": "QUJD", "mime_type": "image/png"}])])
    picture = backend.calls[-1][1].messages[0]["content"][0]
    assert picture["image_url"]["url"] == "data:image/png;base64,QUJD"
    with pytest.raises(ValueError, match="a human message cannot be translated"):
        model.invoke([HumanMessage([{"type": "image_url"}])])
    with pytest.raises(ValueError, match="a human message cannot be translated"):
        model.invoke([HumanMessage([{"type": "media", "data": 3, "mime_type": "image/png"}])])


def test_a_tenants_rules_narrow_who_may_answer() -> None:
    parts = two_models()[0].parts
    router = Router.from_parts(replace(parts, tenants=Tenants({"t": TenantConfig(allow=frozenset({"large"}))})))
    large = ChatEccos(router=router, tenant="t")
    assert [each.name for each in large.candidates()] == ["large"]
    assert large.profile is not None
    assert large.profile["max_input_tokens"] == 8000
    assert len(ChatEccos(router=router, tenant="nobody").candidates()) == 2
