"""`eccos-local/...` through LiteLLM: what a caller of LiteLLM sees."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from eccos_core.testing import build_tiny_model

litellm = pytest.importorskip("litellm")
USER = [{"role": "user", "content": "What is 12 + 7?"}]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    from eccos_core.backends.local.litellm_provider import register_local_provider

    register_local_provider()
    return f"eccos-local/{build_tiny_model(tmp_path_factory.mktemp('models') / 'tiny')}"


def test_registering_twice_gives_the_same_provider(model: str) -> None:
    from eccos_core.backends.local.litellm_provider import PROVIDER, register_local_provider

    first = register_local_provider()
    assert register_local_provider() is first
    assert [entry["provider"] for entry in litellm.custom_provider_map].count(PROVIDER) == 1


def test_a_folder_answers_with_usage(model: str) -> None:
    response = litellm.completion(model=model, messages=USER, max_tokens=6)
    assert response.choices[0].message.content
    assert response.choices[0].finish_reason == "length"
    usage = response.usage
    assert (usage.completion_tokens, usage.total_tokens) == (6, usage.prompt_tokens + 6)


async def test_all_four_ways_of_calling_give_one_answer(model: str) -> None:
    arguments: dict[str, Any] = {"model": model, "messages": USER, "max_tokens": 10}
    expected = litellm.completion(**arguments).choices[0].message.content

    def text(chunks: list[Any]) -> str:
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)

    assert (await litellm.acompletion(**arguments)).choices[0].message.content == expected
    streamed = list(litellm.completion(**arguments, stream=True, stream_options={"include_usage": True}))
    assert text(streamed) == expected
    assert streamed[-1].usage.completion_tokens == 10
    chunks = [chunk async for chunk in await litellm.acompletion(**arguments, stream=True)]
    assert text(chunks) == expected
    assert len(chunks) > 3


@pytest.mark.parametrize(
    ("change", "exception", "says"),
    [
        ({"model": "eccos-local//no/such/folder"}, "NotFoundError", "no Hugging Face model folder '/no/such/folder'"),
        ({"model": "eccos-local/no-such-pocket-model"}, "NotFoundError", "no pocket model"),
        ({"max_tokens": 500}, "ContextWindowExceededError", "context window of 128 tokens"),
        ({"temperatur": 1}, "BadRequestError", "did you mean 'temperature'"),
        ({"logit_bias": {"1": 2}}, "BadRequestError", "unknown parameter 'logit_bias'"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "BadRequestError", "unknown parameter 'tools'"),
        ({"temperature": 5}, "BadRequestError", "temperature is 5"),
        ({"max_tokens": 0}, "BadRequestError", "max_tokens is 0"),
        ({"stop": [1]}, "BadRequestError", "stop is [1]"),
        ({"seed": "x"}, "BadRequestError", "seed is 'x'"),
        ({"messages": [{"role": "system", "content": "x"}]}, "BadRequestError", "no system message"),
        ({"dtype": "float7"}, "BadRequestError", "dtype 'float7'"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_mistake_raises_what_a_hosted_model_would_raise(
    model: str, change: dict[str, Any], exception: str, says: str, stream: bool
) -> None:
    with pytest.raises(getattr(litellm, exception)) as caught:
        list(litellm.completion(**{"model": model, "messages": USER, "stream": stream, **change}))
    assert says in str(caught.value)


def test_what_makes_no_difference_here_is_accepted(model: str) -> None:
    response = litellm.completion(model=model, messages=USER, max_tokens=2, user="me", max_retries=2, timeout=60)
    assert response.usage.completion_tokens == 2


def test_device_and_batch_size_can_be_chosen(model: str) -> None:
    response = litellm.completion(model=model, messages=USER, max_tokens=2, device="cpu", dtype="float64", max_batch=2)
    assert response.usage.completion_tokens == 2


async def test_an_answer_that_takes_too_long_times_out(model: str) -> None:
    from eccos_core.backends.local.litellm_provider import register_local_provider

    engine = register_local_provider().models.engine(model.removeprefix("eccos-local/"))
    released = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(*_: Any) -> None:
        asyncio.run_coroutine_threadsafe(released.wait(), loop).result(60)

    hook = engine.model.register_forward_pre_hook(slow)
    with pytest.raises(litellm.Timeout):
        await litellm.acompletion(model=model, messages=USER, max_tokens=2, timeout=0.05)
    hook.remove()
    released.set()


async def test_the_event_loop_goes_on_while_a_model_works(model: str) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    ticking = asyncio.create_task(tick())
    await litellm.acompletion(model=model, messages=USER, max_tokens=60)
    ticking.cancel()
    assert ticks > 20


class Gate:
    """Lets a model take one step for each permit."""

    def __init__(self, model: str) -> None:
        from eccos_core.backends.local.litellm_provider import register_local_provider

        self._engine = register_local_provider().models.engine(model.removeprefix("eccos-local/"))
        self._permits = threading.Semaphore(0)
        self._before = self._engine.statistics().output_tokens
        self._hook = self._engine.model.register_forward_pre_hook(lambda *_: self._permits.acquire(timeout=60) and None)

    def let(self, steps: int) -> None:
        self._permits.release(steps)

    def open(self) -> None:
        self._hook.remove()
        self.let(1000)

    def tokens(self) -> int:
        """Tokens since the gate was shut."""
        return self._engine.statistics().output_tokens - self._before


async def test_cancelled_calls_are_not_worked_on(model: str) -> None:
    gate = Gate(model)
    tasks = [asyncio.create_task(litellm.acompletion(model=model, messages=USER, max_tokens=90)) for _ in range(4)]
    await asyncio.sleep(0.2)
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    gate.open()
    litellm.completion(model=model, messages=USER, max_tokens=1)
    assert gate.tokens() < 20


def test_a_stream_that_is_closed_is_not_worked_on(model: str) -> None:
    gate = Gate(model)
    gate.let(3)
    stream = litellm.completion(model=model, messages=USER, max_tokens=90, stream=True)
    next(iter(stream))
    stream.completion_stream.close()
    gate.open()
    litellm.completion(model=model, messages=USER, max_tokens=1)
    assert gate.tokens() < 20
