"""Packs against a real server: with answers shuffled, missing, twice and made up, each reaches its own request."""

from __future__ import annotations

import asyncio
import http.client
import json
import math
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from packed_pool import review
from served_pool import KEY, served_pool

from eccos_core.domain import Chunk, Completion, Model, Request
from eccos_core.packing import PackingRule
from eccos_core.router import Router
from eccos_core.testing import ModelServer, scripted_router

pytestmark = [pytest.mark.service, pytest.mark.timeout(120)]

REQUESTS = 10_000
FAULTS = {19: "[[missing]]", 43: "[[twice]]", 29: "[[extra]]", 397: "[[unsplit]]"}  # every so many requests


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with ModelServer() as running:
        yield running


@pytest.fixture
def router(server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Router]:
    """A router as users configure it, through LiteLLM."""
    path = served_pool(tmp_path, server.url)
    packing = "packing: {most: 8, assume_quality_loss: 0.01}"
    path.write_text(path.read_text().replace("encoder: minilm", f"encoder: static\n  {packing}"))
    monkeypatch.setenv("SERVED_KEY", KEY)
    with Router.from_yaml(path) as made:
        server.reset()
        yield made


class PlainBackend:
    """Calls the server with as little work as possible: LiteLLM would take most of a minute for 3,000 calls."""

    def __init__(self, url: str, model: Model) -> None:
        self._address, self._model = urlsplit(url), model
        self._own = threading.local()

    def complete(self, model: str, request: Request) -> Completion:
        connection = getattr(self._own, "connection", None)
        if connection is None:
            connection = http.client.HTTPConnection(self._address.hostname or "", self._address.port)
            self._own.connection = connection
        started = time.monotonic()
        body = json.dumps({"model": model, "messages": list(request.messages), **request.parameters})
        connection.request("POST", f"{self._address.path}/chat/completions", body)
        answer = json.load(connection.getresponse())
        choice, used = answer["choices"][0], answer["usage"]
        tokens = used["prompt_tokens"], used["completion_tokens"]
        cost = tokens[0] * self._model.usd_per_input_token + tokens[1] * self._model.usd_per_output_token
        latency_s, text = time.monotonic() - started, choice["message"]["content"]
        return Completion(text, model, *tokens, cost, latency_s, choice["message"], choice["finish_reason"])

    async def acomplete(self, model: str, request: Request) -> Completion:
        return await asyncio.to_thread(self.complete, model, request)

    def stream(self, model: str, request: Request) -> Generator[Chunk, None, None]:
        raise NotImplementedError

    def astream(self, model: str, request: Request) -> AsyncGenerator[Chunk, None]:
        raise NotImplementedError


def fault(number: int) -> str:
    return " ".join([word for every, word in FAULTS.items() if number % every == 0] + ["[[shuffle]]"])


def left_open(number: int) -> bool:
    """Whether a pack of eight leaves this request open."""
    pack = range(number - number % 8, number - number % 8 + 8)
    return number % 19 == 0 or number % 43 == 0 or any(each % 397 == 0 for each in pack)


def requests(count: int) -> list[Request]:
    return [review(f"item number {number} {fault(number)}") for number in range(count)]


def test_ten_thousand_packed_requests_each_get_their_own_answer(server: ModelServer) -> None:
    small = Model("small", 1e-7, 4e-7, max_concurrency=16)
    router = scripted_router(PlainBackend(server.url, small), [small], {"": [0.9]})
    router = Router.from_parts(replace(router.parts, packing=PackingRule(8, assume_quality_loss=0.01), deadline_s=60))
    server.reset()
    asked = requests(REQUESTS)
    answers = router.complete_batch(asked)
    for number, (request, answer) in enumerate(zip(asked, answers, strict=True)):
        assert answer.text.removeprefix("You said: ") == f"item number {number}"
        assert answer.decision.request_id == request.id
        assert answer.cost_usd > 0
    again = [answer for answer in answers if answer.calls]
    assert Counter(answer.model for answer in answers) == {"small*8": REQUESTS - len(again), "small": len(again)}
    assert len(again) == len([n for n in range(REQUESTS) if left_open(n)])
    seen = server.statistics()
    assert seen.requests["small"] == REQUESTS / 8 + len(again), "each pack once, and each open request once"
    assert seen.most_at_once["small"] <= 16, "a slot is held per call"
    total = math.fsum(answer.cost_usd for answer in answers)
    recorded = [call.cost_usd for answer in again for call in answer.calls]
    assert math.isclose(total, math.fsum([*recorded, *(each.cost_usd for each in answers if not each.calls)]))


def test_the_bill_is_that_of_the_server_and_less_than_without_packs(server: ModelServer, router: Router) -> None:
    asked = requests(160)
    packed = router.complete_batch(asked)
    calls = server.statistics().requests["small"]
    alone = router.complete_batch(asked, pack=False)
    assert calls == 20 + sum(left_open(number) for number in range(160))
    assert sum(each.cost_usd for each in packed) < 0.6 * sum(each.cost_usd for each in alone)
    assert [each.text for each in packed] == [each.text for each in alone]
