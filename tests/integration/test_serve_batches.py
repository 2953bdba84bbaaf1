"""Files and batches over HTTP: one joint assignment for a file, with its certificate, across restarts."""

from __future__ import annotations

import asyncio
import io
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
from serving_process import running_server

from eccos_core.domain import Capability, Model, QualityFloor, Request
from eccos_core.errors import BackendError
from eccos_core.router import Router
from eccos_core.server.errors import ApiError
from eccos_core.server.gate import Caller, OpenGate
from eccos_core.server.settings import ServerSettings
from eccos_core.testing import ScriptedBackend, scripted_router

POOL = tuple(
    Model(name, price, price, max_concurrency=4, capabilities=frozenset(Capability))
    for name, price in (("small", 1e-6), ("large", 2e-5))
)


class TwoKeys(OpenGate):
    """A gate with the keys `a` and `b`."""

    has_keys = True

    async def admit(self, headers: object) -> Caller:  # type: ignore[override]
        key = str(headers.get("authorization", "")).removeprefix("Bearer ")  # type: ignore[attr-defined]
        if key not in ("a", "b"):
            raise ApiError("authentication", "no such key")
        return Caller(key_id=key)


def make_router(backend: ScriptedBackend) -> Router:
    quality = {"hard": [0.2, 0.9], "": [0.8, 0.9]}
    return scripted_router(backend, POOL, quality, policy=QualityFloor(0.84))


def lines(questions: list[str], **body: object) -> bytes:
    return b"".join(
        json.dumps(
            {
                "custom_id": f"q{place}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {"model": "eccos", "messages": [{"role": "user", "content": question}], **body},
            }
        ).encode()
        + b"\n"
        for place, question in enumerate(questions)
    )


def wait(client: openai.OpenAI, batch_id: str, until: tuple[str, ...] = ("completed", "failed", "cancelled")) -> object:
    deadline = time.monotonic() + 20
    while (batch := client.batches.retrieve(batch_id)).status not in until:
        assert time.monotonic() < deadline, batch
        time.sleep(0.02)
    return batch


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    def small(request: Request) -> str:
        if "fail" in str(request.messages[0]["content"]):
            raise BackendError("small", "no", retryable=False)
        return "small says hello"

    backend = ScriptedBackend({"small": [small], "large": ["large says hello"]}, POOL)
    with running_server(make_router(backend), TwoKeys()) as running:
        yield running.address


@pytest.fixture
def client(address: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{address}/v1", api_key="a", max_retries=0)


def test_a_file_is_one_joint_assignment_with_its_certificate(client: openai.OpenAI) -> None:
    content = lines(["hard question", "easy one", "easy two", "easy three"])
    uploaded = client.files.create(file=("questions.jsonl", content), purpose="batch")
    batch = client.batches.create(
        input_file_id=uploaded.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={"project": "x"},
    )
    assert batch.status in ("validating", "in_progress")
    batch = wait(client, batch.id)  # type: ignore[assignment]
    assert batch.status == "completed"
    assert batch.request_counts is not None
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (4, 4, 0)
    assert batch.metadata == {"project": "x"}
    assert batch.output_file_id is not None
    results = [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]
    assert {each["custom_id"] for each in results} == {"q0", "q1", "q2", "q3"}
    chosen = {each["custom_id"]: each["response"]["body"]["model"] for each in results}
    # the mean must be 0.84: the hard one (0.9 from large) and one more from large give (0.9 + 0.9 + 0.8 + 0.8) / 4
    assert chosen["q0"] == "large"
    assert sorted(chosen.values()) == ["large", "large", "small", "small"]
    assert all(each["error"] is None and each["response"]["status_code"] == 200 for each in results)
    own = batch.model_extra["eccos"]  # type: ignore[index]
    (certificate,) = own["certificates"]
    assert certificate["requests"] == 4
    assert certificate["predicted_quality"] == pytest.approx(0.85)
    assert certificate["lower_bound_usd"] <= certificate["predicted_cost_usd"]
    assert certificate["gap"] >= 0
    assert certificate["engine"]
    assert own["cost_usd"] == pytest.approx(sum(each["response"]["body"]["eccos"]["cost_usd"] for each in results))


def test_a_batch_takes_a_policy(client: openai.OpenAI) -> None:
    uploaded = client.files.create(file=io.BytesIO(lines(["easy one", "hard one"])), purpose="batch")
    batch = client.batches.create(
        input_file_id=uploaded.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        extra_body={"eccos": {"policy": "best"}},
    )
    batch = wait(client, batch.id)  # type: ignore[assignment]
    text = client.files.content(batch.output_file_id or "").text
    assert [json.loads(line)["response"]["body"]["model"] for line in text.splitlines()] == ["large", "large"]


def test_a_failed_request_leaves_the_others_alone(client: openai.OpenAI) -> None:
    own = {"allow": ["small"]}
    content = lines(["easy fail", "easy one"], model="eccos:cheap", eccos=own)
    content += lines(["x"], stream=True).replace(b"q0", b"streamed")
    uploaded = client.files.create(file=content, purpose="batch")
    batch = client.batches.create(input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h")
    batch = wait(client, batch.id)  # type: ignore[assignment]
    assert batch.status == "completed"
    assert batch.request_counts is not None
    assert (batch.request_counts.completed, batch.request_counts.failed) == (1, 2)
    failed = [json.loads(line) for line in client.files.content(batch.error_file_id or "").text.splitlines()]
    assert {each["custom_id"] for each in failed} == {"q0", "streamed"}
    assert all(each["error"]["message"] for each in failed)


@pytest.mark.parametrize(
    ("content", "said", "line"),
    [
        (b"", "no requests", None),
        (b"{\n", "not JSON", 1),
        (b"\x1f\x8b0", "not gzip", None),
        (lines(["a"]) + lines(["b"]), "twice", 2),
        (lines(["a"]).replace(b"POST", b"GET"), "method must be POST", 1),
        (lines(["a"]).replace(b'"custom_id": "q0"', b'"custom_id": 3'), "custom_id", 1),
        (b'{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": 3}\n', "body", 1),
    ],
)
def test_a_faulty_file_fails_the_batch_and_says_where(
    client: openai.OpenAI, content: bytes, said: str, line: int | None
) -> None:
    uploaded = client.files.create(file=("faulty.jsonl", content), purpose="batch")
    batch = client.batches.create(input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h")
    batch = wait(client, batch.id)  # type: ignore[assignment]
    assert batch.status == "failed"
    assert batch.errors is not None
    assert batch.errors.data is not None
    assert said in (batch.errors.data[0].message or "")
    assert "/" not in (batch.errors.data[0].message or "").replace("/v1/chat/completions", "")
    assert batch.errors.data[0].line == line


def test_files_and_batches_belong_to_their_key(client: openai.OpenAI, address: str) -> None:
    other = openai.OpenAI(base_url=f"{address}/v1", api_key="b", max_retries=0)
    uploaded = client.files.create(file=lines(["easy"]), purpose="batch")
    batch = client.batches.create(input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h")
    for ask in (
        lambda: other.files.retrieve(uploaded.id),
        lambda: other.files.content(uploaded.id),
        lambda: other.files.delete(uploaded.id),
        lambda: other.batches.retrieve(batch.id),
        lambda: other.batches.cancel(batch.id),
        lambda: other.batches.create(
            input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h"
        ),
        lambda: client.files.retrieve("file-../../etc/passwd"),
        lambda: client.files.retrieve("file-" + "0" * 32),
    ):
        with pytest.raises(openai.NotFoundError):
            ask()
    assert list(other.files.list()) == []
    assert list(other.batches.list()) == []
    wait(client, batch.id)


def test_lists_come_in_pages(client: openai.OpenAI) -> None:
    made = [client.files.create(file=lines(["easy"]), purpose="batch").id for _ in range(3)]
    first = client.files.list(limit=2)
    assert len(first.data) == 2
    assert first.has_more
    everything = [each.id for each in client.files.list(limit=2)]
    assert set(made) <= set(everything)
    assert len(everything) == len(set(everything))
    batches = [
        client.batches.create(input_file_id=made[0], endpoint="/v1/chat/completions", completion_window="24h").id
        for _ in range(3)
    ]
    listed = [each.id for each in client.batches.list(limit=1)]
    assert set(batches) <= set(listed)
    with pytest.raises(openai.BadRequestError, match="limit"):
        client.batches.list(limit=0)
    client.files.delete(made[1])
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(made[1])


def test_odd_uploads_are_refused(address: str) -> None:
    headers = {"authorization": "Bearer a"}
    url = f"{address}/v1/files"
    assert httpx.post(url, headers=headers, json={"a": 1}).status_code == 400
    assert httpx.post(url, headers=headers, files={"file": b"x"}).json()["error"]["param"] == "purpose"
    assert httpx.post(url, headers=headers, files={"f": b"x"}, data={"purpose": "batch"}).status_code == 400
    broken = {**headers, "content-type": "multipart/form-data; boundary=x"}
    assert httpx.post(url, headers=broken, content=b"--y\r\n").status_code == 400
    assert httpx.post(url, files={"file": b"x"}, data={"purpose": "batch"}).status_code == 401


def test_sizes_and_counts_are_limited() -> None:
    backend = ScriptedBackend({"small": ["hi"], "large": ["ho"]}, POOL)
    settings = ServerSettings(port=0, max_file_bytes=1_000, max_files=2)
    with running_server(make_router(backend), settings=settings) as running:
        client = openai.OpenAI(base_url=f"{running.address}/v1", api_key="none", max_retries=0)
        with pytest.raises(openai.APIStatusError) as caught:
            client.files.create(file=b"x" * 5_000, purpose="batch")
        assert caught.value.status_code == 413
        for _ in range(2):
            client.files.create(file=b"x", purpose="batch")
        with pytest.raises(openai.PermissionDeniedError, match="2 files"):
            client.files.create(file=b"x", purpose="batch")


def test_a_cancelled_batch_keeps_its_answers() -> None:
    def slow(request: Request) -> str:
        return "now"

    class Waiting(ScriptedBackend):
        async def acomplete(self, model: str, request: Request):  # type: ignore[no-untyped-def]
            if "wait" in str(request.messages[0]["content"]):
                await asyncio.sleep(60)
            return await super().acomplete(model, request)

    backend = Waiting({"small": [slow], "large": [slow]}, POOL)
    with running_server(make_router(backend)) as running:
        client = openai.OpenAI(base_url=f"{running.address}/v1", api_key="none", max_retries=0)
        uploaded = client.files.create(file=lines(["easy", "wait", "wait"]), purpose="batch")
        made = client.batches.create(
            input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        while (client.batches.retrieve(made.id).request_counts or made).completed != 1:  # type: ignore[union-attr]
            time.sleep(0.02)
        assert client.batches.cancel(made.id).status == "cancelling"
        batch = wait(client, made.id)
        assert batch.status == "cancelled"  # type: ignore[attr-defined]
        output = client.files.content(batch.output_file_id).text  # type: ignore[attr-defined]
        assert [json.loads(line)["custom_id"] for line in output.splitlines()] == ["q0"]
        assert running.serving.router.status().workload.in_flight == 0
        with pytest.raises(openai.BadRequestError, match="cancelled"):
            client.batches.cancel(made.id)


def test_a_restart_takes_up_a_batch_where_it_was(tmp_path: Path) -> None:
    stopped = threading.Event()

    class Stuck(ScriptedBackend):
        async def acomplete(self, model: str, request: Request):  # type: ignore[no-untyped-def]
            if "wait" in str(request.messages[0]["content"]) and not stopped.is_set():
                await asyncio.sleep(60)
            return await super().acomplete(model, request)

    settings = ServerSettings(port=0, files_dir=tmp_path)
    first = Stuck({"small": ["first"], "large": ["first"]}, POOL)
    with running_server(make_router(first), settings=settings) as running:
        client = openai.OpenAI(base_url=f"{running.address}/v1", api_key="none", max_retries=0)
        uploaded = client.files.create(file=lines(["easy", "wait", "easy"]), purpose="batch")
        made = client.batches.create(
            input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        while (client.batches.retrieve(made.id).request_counts or made).completed != 2:  # type: ignore[union-attr]
            time.sleep(0.02)
    stopped.set()
    second = Stuck({"small": ["second"], "large": ["second"]}, POOL)
    with running_server(make_router(second), settings=settings) as running:
        client = openai.OpenAI(base_url=f"{running.address}/v1", api_key="none", max_retries=0)
        batch = wait(client, made.id)
        assert batch.status == "completed"  # type: ignore[attr-defined]
        results = [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]  # type: ignore[attr-defined]
        said = {each["custom_id"]: each["response"]["body"]["choices"][0]["message"]["content"] for each in results}
        assert said == {"q0": "first", "q1": "second", "q2": "first"}
        assert len(second.calls) == 1
        assert batch.model_extra["eccos"]["resumed"] == 1  # type: ignore[attr-defined]
