"""ChatEccos over a scripted backend: one call, batches that are decided jointly, settings, errors, secrets."""

from __future__ import annotations

import asyncio
import copy
import pickle
import subprocess
import sys
import threading
from collections import Counter
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.exceptions import ContextOverflowError
from langchain_core.load import dumpd
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.runnables import ConfigurableField, RunnableLambda
from two_models import two_models

from eccos_core.errors import (
    AttemptsExhausted,
    BackendError,
    ConfigError,
    InfeasibleError,
    NoEligibleModelError,
    RequestError,
    UnknownModelError,
)
from eccos_integrations.langchain import ChatEccos

PROMPT = ChatPromptTemplate.from_messages([("system", "Answer."), ("human", "{question}")])


def models_of(messages: list[AIMessage]) -> list[str]:
    return [message.response_metadata["model_name"] for message in messages]


class Heard(BaseCallbackHandler):
    """What callbacks are told."""

    def __init__(self) -> None:
        self.started: list[dict[str, Any]] = []
        self.ended = 0
        self.errors: list[BaseException] = []

    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        self.started.append({"serialized": serialized, **kwargs})

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        self.ended += 1

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        self.errors.append(error)


# ------------------------------------------------------------------------------------------------ one call


def test_the_answer_says_who_gave_it_at_what_cost_and_why() -> None:
    router, _ = two_models()
    message = ChatEccos(router=router).invoke("an easy one")
    metadata = message.response_metadata
    assert message.content == "from small"
    assert metadata["model_name"] == "small"
    assert metadata["model_provider"] == "eccos"
    assert metadata["predicted_quality"] == 0.9
    assert metadata["quality_source"] == "outcomes"
    assert metadata["cost_usd"] == pytest.approx(5e-6)  # three words in, two out
    assert "small" in metadata["reason"]
    assert message.usage_metadata is not None
    assert message.usage_metadata["total_tokens"] == 5
    router.record(metadata["decision_id"], 1.0)  # a decision that the router knows


def test_a_floor_for_one_call_is_the_floor_of_a_batch_of_one() -> None:
    model = ChatEccos(router=two_models()[0])
    assert models_of([model.invoke("an easy one"), model.invoke("an easy one", quality_floor=0.93)]) == [
        "small",
        "large",
    ]
    assert models_of([asyncio.run(model.ainvoke("an easy one", min_quality=0.93))]) == ["large"]


def test_settings_of_the_call_win_over_those_of_the_model() -> None:
    model = ChatEccos(router=two_models()[0], deny="large", temperature=0.5, stop="END")
    assert models_of([model.invoke("a hard one")]) == ["small"]
    assert models_of([model.invoke("a hard one", deny=[], model="large")]) == ["large"]


def test_call_parameters_reach_the_model_and_settings_of_ours_do_not() -> None:
    router, backend = two_models()
    model = ChatEccos(router=router, temperature=0.5, stop=["END"], model_kwargs={"user": "me"}, tenant=None)
    model.invoke("an easy one", max_tokens=7, allow=["small"], seed=1)
    assert dict(backend.calls[0][1].parameters) == {
        "temperature": 0.5,
        "user": "me",
        "max_tokens": 7,
        "seed": 1,
        "stop": ["END"],
    }


def test_a_stream_ends_with_usage_and_decision_on_its_last_chunk() -> None:
    router, backend = two_models()
    chunks = list(ChatEccos(router=router).stream("a hard one"))
    assert "".join(str(chunk.content) for chunk in chunks) == "from large"
    assert [chunk.chunk_position for chunk in chunks] == [None, None, "last"]
    whole = chunks[0] + chunks[1] + chunks[2]
    assert whole.usage_metadata is not None
    assert whole.response_metadata["model_name"] == "large"
    assert len(backend.calls) == 1


def test_a_stream_that_is_dropped_gives_its_slot_back() -> None:
    router, _ = two_models(max_concurrency=1)
    stream = ChatEccos(router=router).stream("an easy one")
    next(stream)
    assert list(router.workload.free_slots()) == [0, 1]
    stream.close()  # type: ignore[attr-defined]
    assert list(router.workload.free_slots()) == [1, 1]


async def test_stream_events_tell_of_the_tokens() -> None:
    chain = PROMPT | ChatEccos(router=two_models()[0]) | StrOutputParser()
    events = [event async for event in chain.astream_events({"question": "easy"}, version="v2")]
    kinds = Counter(event["event"] for event in events)
    assert kinds["on_chat_model_stream"] == 3
    end = next(event for event in events if event["event"] == "on_chat_model_end")
    assert end["data"]["output"].response_metadata["model_name"] == "small"


def test_usage_adds_up_over_models_for_langchains_own_counter() -> None:
    counter = UsageMetadataCallbackHandler()
    model = ChatEccos(router=two_models()[0])
    model.batch(["an easy one", "an easy one"], config={"callbacks": [counter]})
    assert counter.usage_metadata["small"]["total_tokens"] == 10


# ------------------------------------------------------------------------------------------------ batches


def test_a_batch_is_one_assignment_also_in_the_middle_of_a_chain() -> None:
    router, _ = two_models()
    chain = PROMPT | ChatEccos(router=router, quality_floor=0.63) | RunnableLambda(lambda message: message)
    answers = chain.batch([{"question": each} for each in ("easy", "hard 1", "hard 2")])
    # alone, each hard one would need large; together one of them is enough: (0.9 + 0.1 + 0.9) / 3 >= 0.63
    assert sorted(models_of(answers)) == ["large", "small", "small"]
    assert models_of(answers)[0] == "small"


async def test_the_asynchronous_batch_is_the_same_assignment() -> None:
    router, _ = two_models()
    chain = PROMPT | ChatEccos(router=router, quality_floor=0.63)
    answers = await chain.abatch([{"question": each} for each in ("easy", "hard 1", "hard 2")])
    assert sorted(models_of(answers)) == ["large", "small", "small"]
    ended = [place async for place in chain.abatch_as_completed([{"question": "easy"}, {"question": "hard"}])]
    assert sorted(place for place, _ in ended) == [0, 1]


def test_a_budget_is_the_budget_of_the_whole_batch() -> None:
    model = ChatEccos(router=two_models()[0], budget_usd=0.0007)
    answers = model.batch([f"hard {i}" for i in range(8)])
    predicted = sum(answer.response_metadata["predicted_cost_usd"] for answer in answers)
    assert predicted <= 0.0007
    assert 0 < Counter(models_of(answers))["large"] < 8


def test_results_keep_their_order_and_come_as_they_end() -> None:
    echo = [lambda request: request.messages[-1]["content"]]
    router, _ = two_models({"small": echo, "large": echo})
    model = ChatEccos(router=router)
    asked = [f"easy {i}" for i in range(20)]
    assert [answer.content for answer in model.batch(asked)] == asked
    assert {place: answer.content for place, answer in model.batch_as_completed(asked)} == dict(enumerate(asked))


def test_with_return_exceptions_each_error_stands_in_its_place() -> None:
    busy = BackendError("small", "no", retryable=False, kind="bad_request")
    router, backend = two_models({"small": ["fine", busy], "large": ["from large"]})
    model = ChatEccos(router=router, allow="small")
    inputs: list[Any] = ["easy 1", [], "word " * 3000, "easy 2"]
    first, empty, long, last = model.batch(inputs, config={"max_concurrency": 1}, return_exceptions=True)
    assert isinstance(empty, ValueError)
    assert isinstance(long, ContextOverflowError)
    assert isinstance(long, NoEligibleModelError)
    assert {type(first).__name__, type(last).__name__} == {"AIMessage", "BackendError"}
    assert len(backend.calls) == 2  # the others were asked all the same, those two never


def test_without_return_exceptions_the_error_is_raised_and_nothing_more_is_called() -> None:
    no = BackendError("small", "no", retryable=False, kind="bad_request")
    router, backend = two_models({"small": [no], "large": [no]}, max_concurrency=1)
    with pytest.raises(BackendError, match="no"):
        ChatEccos(router=router, allow="small").batch([f"easy {i}" for i in range(30)], config={"max_concurrency": 1})
    assert len(backend.calls) < 30


@pytest.mark.parametrize("how", ["batch", "abatch"])
def test_a_floor_out_of_reach_is_raised_or_stands_in_every_place(how: str) -> None:
    model = ChatEccos(router=two_models()[0], quality_floor=0.99)

    def run(**kwargs: Any) -> Any:
        return (
            model.batch(["easy", "hard"], **kwargs)
            if how == "batch"
            else asyncio.run(model.abatch(["easy", "hard"], **kwargs))
        )

    with pytest.raises(InfeasibleError, match=r"best .* can reach is 0\.9250"):
        run()
    errors = run(return_exceptions=True)
    assert [type(error) for error in errors] == [InfeasibleError, InfeasibleError]
    nearest = ChatEccos(router=two_models()[0], quality_floor=0.99, on_infeasible="best_effort")
    assert [answer.response_metadata["floor_met"] for answer in nearest.batch(["easy", "hard"])] == [False, False]


class Crowd:
    """Counts how many answers are under way at once."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._lock = threading.Lock()
        self._pause = threading.Event()

    def __call__(self, request: Any) -> str:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        self._pause.wait(0.01)
        with self._lock:
            self.now -= 1
        return "done"


def test_max_concurrency_holds_over_all_models_and_slots_per_model() -> None:
    crowd = Crowd()
    router, _ = two_models({"small": [crowd], "large": [crowd]}, max_concurrency=3)
    model = ChatEccos(router=router)
    model.batch([f"easy {i}" for i in range(12)], config={"max_concurrency": 2})
    assert crowd.most == 2
    crowd.most = 0
    model.batch([f"easy {i}" for i in range(12)])
    assert 3 <= crowd.most <= 6  # three slots each
    assert list(router.workload.free_slots()) == [3, 3]


async def test_cancelling_a_batch_gives_every_slot_back() -> None:
    router, _ = two_models(latency_s=1000.0)
    task = asyncio.create_task(ChatEccos(router=router).abatch(["easy"] * 4))
    async with asyncio.timeout(30):
        while list(router.workload.free_slots()) == [8, 8]:  # noqa: ASYNC110 - the workload tells nobody
            await asyncio.sleep(0.01)
    task.cancel()
    ended, _ = await asyncio.wait([task], timeout=20)
    assert ended  # not after the thousand seconds that the calls would take
    assert task.cancelled()
    assert list(router.workload.free_slots()) == [8, 8]


def test_a_configured_floor_is_the_floor_of_the_batch() -> None:
    model = ChatEccos(router=two_models()[0]).configurable_fields(
        quality_floor=ConfigurableField(id="floor"), allow=ConfigurableField(id="allow")
    )
    questions = ["easy", "hard 1", "hard 2"]
    answers = model.with_config(configurable={"floor": 0.63}).batch(questions)
    assert sorted(models_of(answers)) == ["large", "small", "small"]
    chain = PROMPT | model
    answers = chain.batch([{"question": each} for each in questions], config={"configurable": {"floor": 0.85}})
    assert models_of(answers) == ["large", "large", "large"] or Counter(models_of(answers))["large"] == 2
    assert models_of([model.invoke("hard", config={"configurable": {"allow": ["small"]}})]) == ["small"]


def test_retries_and_fallbacks_of_langchain_wrap_batches() -> None:
    gone = BackendError("small", "down", retryable=True, kind="unavailable")
    router, _ = two_models({"small": [gone, "at last"], "large": [gone, "at last"]})
    model = ChatEccos(router=router, allow="small")
    retried = model.with_retry(retry_if_exception_type=(AttemptsExhausted,), wait_exponential_jitter=False)
    assert [answer.content for answer in retried.batch(["easy"])] == ["at last"]
    hopeless = ChatEccos(router=two_models()[0], quality_floor=0.99)
    rescued = hopeless.with_fallbacks([ChatEccos(router=two_models()[0])])
    assert models_of(rescued.batch(["easy", "hard"])) == ["small", "small"]


# ------------------------------------------------------------------------------------------ the framework's promises


def test_callbacks_of_a_batch_hear_every_call_without_the_decision_in_its_parameters() -> None:
    heard = Heard()
    model = ChatEccos(router=two_models()[0], callbacks=[heard], tags=["t"])
    model.batch(["easy", "hard"], config={"metadata": {"k": "v"}})
    assert (len(heard.started), heard.ended) == (2, 2)
    assert heard.started[0]["tags"] == ["t"]
    assert heard.started[0]["metadata"]["ls_provider"] == "eccos"
    assert heard.started[0]["metadata"]["k"] == "v"
    assert "decision" not in heard.started[0]["invocation_params"]
    with pytest.raises(ValueError, match="no messages"):
        model.invoke([])
    assert isinstance(heard.errors[0], RequestError)


def test_a_cached_answer_costs_nothing_and_takes_no_part_in_the_assignment() -> None:
    router, backend = two_models()
    model = ChatEccos(router=router, cache=InMemoryCache(), quality_floor=0.6)
    model.invoke("easy")
    assert len(backend.calls) == 1
    # with the two cached answers in the assignment, small would do for "hard": (0.9 + 0.9 + 0.1) / 3 >= 0.6
    assert models_of(model.batch(["easy", "easy", "hard"])) == ["small", "small", "large"]
    assert len(backend.calls) == 2
    assert models_of(model.batch(["easy"], temperature=0.9)) == ["small"]
    assert len(backend.calls) == 3  # another temperature is another question


def test_the_rate_limiter_is_asked_for_every_call() -> None:
    class Counting(InMemoryRateLimiter):
        asked = 0

        def acquire(self, *, blocking: bool = True) -> bool:
            Counting.asked += 1
            return True

    ChatEccos(router=two_models()[0], rate_limiter=Counting()).batch(["easy", "hard", "easy"])
    assert Counting.asked == 3


def test_a_thread_is_a_session_and_an_agents_conversation_is_known_by_its_beginning() -> None:
    router, backend = two_models()
    model = ChatEccos(router=router)
    model.invoke("easy", config={"configurable": {"thread_id": "t1"}})
    list(model.stream("easy", config={"configurable": {"thread_id": "t2"}}))
    model.batch(["easy"], config={"metadata": {"session_id": "t3"}})
    model.invoke("easy", session_id="t4")
    model.invoke("easy")
    model.invoke([HumanMessage("hard"), AIMessage("well"), HumanMessage("go on")])
    model.invoke([HumanMessage("hard"), AIMessage("well"), HumanMessage("go on"), AIMessage("so"), HumanMessage("x")])
    sessions = [request.session_id for _, request in backend.calls]
    assert sessions[:5] == ["t1", "t2", "t3", "t4", None]
    assert sessions[5] == sessions[6] is not None


def test_tokens_are_counted_without_the_network() -> None:
    model = ChatEccos(router=two_models()[0])
    assert model.get_num_tokens("one two three") == 3
    assert model.get_num_tokens_from_messages([HumanMessage("one two three")]) > 3


# ------------------------------------------------------------------------------------------------ bad input


def test_no_router_and_no_config_is_a_value_error_that_says_both_ways_out() -> None:
    with pytest.raises(ValueError, match=r"ChatEccos\(config='eccos.yaml'\) or ChatEccos\(router="):
        ChatEccos()
    with pytest.raises(ValueError, match=r"must be an eccos_core\.Router"):
        ChatEccos(router="eccos.yaml")
    with pytest.raises(ValueError, match="did you mean 'temperature'"):
        ChatEccos(router=two_models()[0], temprature=0.1)
    with pytest.raises(ValueError, match="quality_floor or budget_usd"):
        ChatEccos(router=two_models()[0], quality_floor=0.5, budget_usd=1.0)


def test_a_config_that_does_not_exist_is_named() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: the file does not exist"):
        ChatEccos(config="nowhere.yaml")


@pytest.mark.parametrize(
    ("messages", "what"),
    [
        ([], "no messages"),
        ([SystemMessage("Be kind.")], "only system messages"),
        ("", "empty"),
        ([HumanMessage([{"type": "text"}])], "human message cannot be translated"),
    ],
)
def test_a_request_that_asks_nothing_is_a_value_error(messages: Any, what: str) -> None:
    model = ChatEccos(router=two_models()[0])
    with pytest.raises(ValueError, match=what) as caught:
        model.invoke(messages)
    assert isinstance(caught.value, RequestError)


def test_what_no_model_can_do_is_said_per_model() -> None:
    model = ChatEccos(router=two_models()[0])
    with pytest.raises(NoEligibleModelError, match="small: cannot do json_schema"):
        model.with_structured_output({"title": "f", "type": "object", "properties": {}}, method="json_schema").invoke(
            "easy", allow=["small"]
        )
    with pytest.raises(UnknownModelError, match="did you mean 'large'"):
        model.invoke("easy", model="larg")
    with pytest.raises(ValueError, match="n is 2"):
        model.invoke("easy", n=2)


def test_a_needed_ability_rules_fallbacks_out_too() -> None:
    gone = BackendError("large", "down", retryable=True, kind="unavailable")
    router, backend = two_models({"small": ["from small"], "large": [gone]})
    picture = HumanMessage([{"type": "image", "url": "https://example.org/cat.png"}, {"type": "text", "text": "easy?"}])
    with pytest.raises(AttemptsExhausted):
        ChatEccos(router=router).invoke([picture])
    assert {model for model, _ in backend.calls} == {"large"}


# ------------------------------------------------------------------------------------------------ secrets


def test_no_key_appears_anywhere(caplog: pytest.LogCaptureFixture) -> None:
    secret = "sk-0123456789abcdef-secret"
    heard = Heard()
    with caplog.at_level("DEBUG"):
        model = ChatEccos(router=two_models()[0], api_key=secret, callbacks=[heard])
        model.invoke("easy")
    with pytest.raises(ValueError, match="needs a router") as caught:
        ChatEccos(api_key=secret)
    shown = [repr(model), str(dumpd(model)), str(model.asdict()), str(heard.started), str(caught.value), caplog.text]
    assert not any(secret in text for text in shown)
    assert "keys belong to the models of the configuration" in caplog.text


def test_a_model_over_a_router_cannot_be_pickled_and_its_copies_share_the_router() -> None:
    model = ChatEccos(router=two_models()[0])
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(model)
    assert copy.deepcopy(model).router is model.router
    assert copy.copy(model).router is model.router


def test_importing_the_integration_loads_nothing_heavy() -> None:
    program = (
        "import sys; from eccos_integrations.langchain import ChatEccos, EccosRouter, FeedbackRecorder; "
        "heavy = {'litellm', 'torch', 'transformers', 'chromadb', 'ortools', 'langchain', 'langchain_litellm', "
        "'sentence_transformers', 'sklearn', 'llama_index'}; print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_run_id_is_kept() -> None:
    run_id = uuid4()
    message = ChatEccos(router=two_models()[0]).invoke("easy", config={"run_id": run_id})
    assert str(run_id) in str(message.id)
