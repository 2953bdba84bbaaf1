"""Nothing that one client sends can hurt another: arbitrary JSON beside good requests, on a real server.

`ECCOS_HOSTILE_EXAMPLES` is how many requests are drawn, 500 by default.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from eccos_core.backends import LiteLLMBackend, RetryingBackend, RetryPolicy
from eccos_core.config.schema import Deployment
from eccos_core.domain import BreakerState, Completion, Model, Request
from eccos_core.errors import EccosError
from eccos_core.router import Router
from eccos_core.routing.call_parameters import OPENAI_PARAMETERS
from eccos_core.testing import ModelServer, scripted_router
from eccos_core.workload import BreakerSettings, WorkloadTracker

EXAMPLES = int(os.environ.get("ECCOS_HOSTILE_EXAMPLES", "500"))
DEADLINE_S = 5.0
SLACK_S = 10.0  # for a busy machine
KEY = "sk-hostile-0123456789abcdef"

pytestmark = [pytest.mark.service, pytest.mark.timeout(max(300, EXAMPLES // 5))]

# ------------------------------------------------------------------------------------------------ what a stranger sends

TEXT = st.text(st.characters(exclude_categories=()), max_size=12)  # half characters and controls are among them
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.just(10**400) | st.binary(max_size=3)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=6
)
PARTS = st.lists(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["text", "image_url", "input_audio", "file", "odd"]) | JSON},
        optional={"text": JSON, "image_url": JSON | st.fixed_dictionaries({"url": JSON})},
    ),
    max_size=3,
)
MESSAGES = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "system", "assistant", "tool", "developer", "function"]) | JSON,
        "content": st.text(max_size=12) | PARTS | JSON,
    },
    optional={"name": JSON, "tool_calls": JSON, "tool_call_id": JSON, "function_call": JSON, "extra": JSON},
)
ODD_TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12)
FINE_MESSAGES = st.fixed_dictionaries({"role": st.sampled_from(["user", "system"]), "content": ODD_TEXT})
NAMES = st.sampled_from([*sorted(OPENAI_PARAMETERS), "top_k", "api_base", "stream", "fallbacks"]) | TEXT
FITTING = {
    "temperature": st.floats(0, 2),
    "max_tokens": st.integers(-1, 50),
    "n": st.integers(-1, 3),
    "stop": TEXT | st.lists(TEXT, max_size=2),
    "timeout": st.floats(1e-9, 10),
    "tools": st.lists(st.fixed_dictionaries({"type": st.just("function"), "function": JSON}), max_size=2),
    "tool_choice": st.sampled_from(["auto", "none"]) | st.dictionaries(TEXT, JSON, max_size=2),
    "response_format": st.fixed_dictionaries({"type": st.sampled_from(["text", "json_object", "json_schema"]) | JSON}),
    "extra_body": st.dictionaries(TEXT, JSON, max_size=2),
    "extra_headers": st.dictionaries(TEXT, TEXT, max_size=2),
    "metadata": st.dictionaries(TEXT, JSON, max_size=2),
    "user": TEXT,
    "seed": st.integers(),
}


@st.composite
def hostile_requests(draw: st.DrawFn) -> tuple[Any, dict[str, Any]]:
    """(messages or anything else, call parameters): some nearly right, some nonsense."""
    fine = st.lists(FINE_MESSAGES, min_size=1, max_size=3)
    odd = st.lists(MESSAGES, min_size=1, max_size=3)
    messages = draw(fine | fine | fine | odd | odd | st.lists(JSON, max_size=2) | JSON)
    names = draw(st.lists(st.sampled_from(sorted(FITTING)) | NAMES, max_size=2, unique=True))
    fits = {name: name in FITTING and draw(st.integers(0, 3)) > 0 for name in names}
    return messages, {name: draw(FITTING[name] if fits[name] else JSON) for name in names}


# ------------------------------------------------------------------------------------------------ the pool, its guests


@dataclass
class Pool:
    """A router over a real server, and one event loop for all of its guests."""

    router: Router
    runner: asyncio.Runner
    outcomes: Counter[str] = field(default_factory=Counter)

    def fresh_router(self) -> Router:
        """The router without any memory of earlier failures, so that a bad example stays bad when it is tried again."""
        workload = WorkloadTracker(self.router.models, breaker=BreakerSettings(failures=1))
        return Router.from_parts(replace(self.router.parts, workload=workload, answer_deadline_s=DEADLINE_S))


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    models = tuple(Model(name, price, price, max_concurrency=4) for name, price in (("small", 1e-6), ("large", 5e-6)))
    with ModelServer(api_key=KEY) as server, asyncio.Runner() as runner:
        parameters = {"api_base": server.url, "api_key": KEY}
        ways = {model.name: [Deployment(f"openai/{model.name}", parameters)] for model in models}
        policy = RetryPolicy(attempts=2, initial_backoff_s=0.0, deadline_s=DEADLINE_S)
        router = scripted_router(RetryingBackend(LiteLLMBackend(ways, models), policy), models, {"": [0.8, 0.9]})
        runner.run(router.acomplete("warm up"))
        yield Pool(router, runner)


async def ask_hostile(router: Router, messages: Any, parameters: dict[str, Any], *, streamed: bool) -> str:
    """What became of it. Only errors of eccos may come out."""
    try:
        request = Request.of(messages) if isinstance(messages, str) else Request(messages=messages)
        asked = request.with_parameters(parameters)
        if streamed:
            async for _ in router.astream(asked):
                pass
        else:
            await router.acomplete(asked)
    except EccosError as error:
        if KEY in repr(vars(error)) + str(error):
            return "the key is in the error"
        return f"{type(error).__name__} {[attempt.message for attempt in getattr(error, 'attempts', ())]}"
    return "answered"


async def ask_well(router: Router, number: int) -> Completion:
    return await router.acomplete(f"good question {number}", temperature=0.5)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=EXAMPLES == 500,
    suppress_health_check=list(HealthCheck),
)
@example(hostile=([{"role": "user", "content": [{"type": "odd"}]}], {}), streamed=False, first=False)
@given(hostile=hostile_requests(), streamed=st.booleans(), first=st.booleans())
def test_nobody_can_hurt_another(pool: Pool, hostile: tuple[Any, dict[str, Any]], streamed: bool, first: bool) -> None:
    router = pool.fresh_router()
    number = pool.outcomes.total()

    async def both() -> tuple[str, Completion]:
        bad, good = ask_hostile(router, *hostile, streamed=streamed), ask_well(router, number)
        if first:
            outcome, completion = await asyncio.gather(bad, good)
        else:
            completion, outcome = await asyncio.gather(good, bad)
        return outcome, completion

    started = time.monotonic()
    outcome, completion = pool.runner.run(both())
    pool.outcomes[outcome.partition(" ")[0]] += 1
    assert time.monotonic() - started < DEADLINE_S + SLACK_S
    assert "the key is in" not in outcome
    assert (completion.text, completion.model, completion.attempts) == (f"You said: good question {number}", "small", 1)
    workload = router.status().workload
    assert (workload.in_flight, workload.waiting) == (0, 0)
    assert {model.breaker for model in workload.models} == {BreakerState.CLOSED}, outcome


def test_both_kinds_were_drawn(pool: Pool) -> None:
    """Half of a test: strangers who are always refused would show nothing of those who are served."""
    assert pool.outcomes["answered"] > EXAMPLES / 100
    assert pool.outcomes["RequestError"] > EXAMPLES / 100
