"""The `Backend` that calls every model through LiteLLM: hosted APIs, OpenAI-compatible servers, local models.

One call is one HTTP request. The retries of LiteLLM and of the provider's client are off. They belong to one place,
`eccos_core.backends.retrying`, where they honour one deadline.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing, contextmanager, suppress
from functools import partial
from typing import Any

from eccos_core.backends.litellm.error_mapping import to_backend_error
from eccos_core.backends.litellm.lazy_import import litellm_module
from eccos_core.backends.litellm.load_balancer import DeploymentLike, LoadBalancer, SimpleDeployment
from eccos_core.backends.litellm.redaction import SecretRedactor
from eccos_core.backends.litellm.register_prices import register_prices
from eccos_core.backends.litellm.responses import PRICE_KEYS, CallRecord, StreamAssembly
from eccos_core.backends.local.registry import LOCAL_PREFIX, local_models, read_claims
from eccos_core.domain import Chunk, Completion, Model, Request
from eccos_core.errors import BackendError, InputError, UnknownModelError

# entries of `litellm_params` that steer routing and accounting, which are ours, and must not reach the call
DECIDED_HERE = frozenset({"model", "messages", "stream", "stream_options"})
NOT_FOR_THE_CALL = DECIDED_HERE | {"rpm", "tpm", "weight", "order", "max_parallel_requests", "tags", *PRICE_KEYS}


class LiteLLMBackend:
    """Calls the models of a pool.

    - `deployments` maps a model's name to LiteLLM's name of it (`"openai/gpt-4o-mini"`), or to several deployments,
      which are balanced by weight, load and failures.
    - `models` is the pool, for names and prices.
    - `usd_per_gpu_hour` maps `eccos-local/` models to a price. They are then priced by measured tokens per second.
    - `timeout_s` is the longest wait for an answer, where neither deployment nor request names one.

    LiteLLM is imported at the first call. Local models stay loaded for as long as a backend that has them can be
    called (`local_models`). Safe to use from several threads and event loops. Raises `InputError` for a model without
    a deployment, or a deployment without a model.
    """

    def __init__(
        self,
        deployments: Mapping[str, str | Sequence[DeploymentLike]],
        models: Sequence[Model],
        *,
        usd_per_gpu_hour: Mapping[str, float] | None = None,
        timeout_s: float = 600.0,
    ) -> None:
        self._models = {model.name: model for model in models}
        reached = {
            name: (SimpleDeployment(ways),) if isinstance(ways, str) else tuple(ways)
            for name, ways in deployments.items()
        }
        for name, ways in reached.items():
            if name not in self._models:
                raise InputError(f"there is a deployment of {name!r} but no model with that name, so it has no price")
            if not ways:
                raise InputError(f"model {name!r} has no deployment; give at least one way to call it")
        self._balancers = {name: LoadBalancer(ways) for name, ways in reached.items()}
        self._local_names = {
            name: way.litellm_model.removeprefix(LOCAL_PREFIX)
            for name, ways in reached.items()
            for way in ways
            if way.litellm_model.startswith(LOCAL_PREFIX)
        }
        if self._local_names:
            local_models().claim(self, read_claims(_local_ways(way for ways in reached.values() for way in ways)))
        self._usd_per_gpu_hour = dict(usd_per_gpu_hour or {})
        self._timeout_s = timeout_s
        self._scrubber = SecretRedactor.for_parameters(way.parameters for ways in reached.values() for way in ways)
        self._deployments = [(way, self._models[name]) for name, ways in reached.items() for way in ways]
        self._priced_by_us: frozenset[str] = frozenset()  # LiteLLM's names of models that it knows from us
        self._litellm: Any = None

    def complete(self, model: str, request: Request) -> Completion:
        """See `Backend`."""
        litellm = self._ready()
        with self._call(model) as call:
            return call.completion(litellm.completion(**self._arguments(call, request)))

    async def acomplete(self, model: str, request: Request) -> Completion:
        """See `Backend`. Cancelling the task cancels the call."""
        litellm = self._litellm or await asyncio.to_thread(self._ready)
        with self._call(model) as call:
            return call.completion(await litellm.acompletion(**self._arguments(call, request)))

    def stream(self, model: str, request: Request) -> Generator[Chunk, None, None]:
        """See `Backend`. Closing the iterator, or dropping it, closes the connection."""
        litellm = self._ready()
        with self._call(model) as call:
            assembly = StreamAssembly(call)
            with self._raise_interrupted(call, assembly):
                response = litellm.completion(**self._arguments(call, request), **_streamed(request))
                with closing(_ClosingStream(response)):
                    for chunk in response:
                        if (piece := assembly.take(chunk)) is not None:
                            yield piece
                completion = assembly.finished(response.received_finish_reason)
        yield Chunk(text="", completion=completion)

    async def astream(self, model: str, request: Request) -> AsyncGenerator[Chunk, None]:
        """See `Backend`. Closing the iterator, or cancelling its task, closes the connection."""
        litellm = self._litellm or await asyncio.to_thread(self._ready)
        with self._call(model) as call:
            assembly = StreamAssembly(call)
            with self._raise_interrupted(call, assembly):
                response = await litellm.acompletion(**self._arguments(call, request), **_streamed(request))
                async with aclosing(response):
                    async for chunk in response:
                        if (piece := assembly.take(chunk)) is not None:
                            yield piece
                completion = assembly.finished(response.received_finish_reason)
        yield Chunk(text="", completion=completion)

    def usd_per_token(self, model: str) -> float | None:
        """What a token of a local model costs now: USD per GPU-hour over measured tokens per hour, input and output
        together. None when the model has no price per GPU-hour, or was not measured yet."""
        local = self._local_names.get(model)
        return None if local is None else local_models().usd_per_token(local, self._usd_per_gpu_hour.get(model))

    def _ready(self) -> Any:
        """LiteLLM, with our provider where the pool needs it."""
        if self._litellm is None:
            litellm = litellm_module()
            if self._local_names:
                from eccos_core.backends.local.litellm_provider import register_local_provider

                register_local_provider()
            ours = [(way.litellm_model, model) for way, model in self._deployments if _speaks_openai(litellm, way)]
            self._priced_by_us = register_prices(litellm, ours)
            self._litellm = litellm
        return self._litellm

    @contextmanager
    def _call(self, model: str) -> Iterator[CallRecord]:
        """One call to one of the model's deployments; what it raises leaves as a `BackendError`."""
        balancer = self._balancers.get(model)
        if balancer is None:
            raise UnknownModelError(model, self._balancers)
        with balancer.choose() as deployment:
            try:
                known = deployment.litellm_model not in self._priced_by_us
                measured = partial(self.usd_per_token, model) if model in self._usd_per_gpu_hour else None
                yield CallRecord(
                    self._models[model], deployment, time.perf_counter(), measured, litellm_knows_price=known
                )
            except BackendError:
                raise
            except Exception as error:
                raise self._translate(deployment, model, error) from error

    @contextmanager
    def _raise_interrupted(self, call: CallRecord, assembly: StreamAssembly) -> Iterator[None]:
        """Says how much of a stream had arrived when it broke."""
        try:
            yield
        except BackendError as error:
            raise assembly.broken(error) from error
        except Exception as error:
            raise assembly.broken(self._translate(call.deployment, call.model.name, error)) from error

    def _translate(self, deployment: DeploymentLike, model: str, error: Exception) -> BackendError:
        return to_backend_error(model, error, self._scrubber, deployment.parameters.get("api_base"))

    def _arguments(self, call: CallRecord, request: Request) -> dict[str, Any]:
        """Keyword arguments of LiteLLM's call: the deployment's, then the request's, which win."""
        deployment = call.deployment
        arguments = {name: value for name, value in deployment.parameters.items() if name not in NOT_FOR_THE_CALL}
        arguments |= {name: value for name, value in request.parameters.items() if name not in DECIDED_HERE}
        arguments.setdefault("timeout", self._timeout_s)
        if _speaks_openai(self._litellm, deployment):
            self._pass_everything_on(arguments, request)
        return {
            **arguments,
            "model": deployment.litellm_model,
            "messages": [dict(message) for message in request.messages],
            "max_retries": 0,
            "num_retries": 0,
        }

    def _pass_everything_on(self, arguments: dict[str, Any], request: Request) -> None:
        """What LiteLLM would keep for itself, drop, or refuse for a model name that it does not know.

        `metadata` it keeps for its own logs, `user` it drops without a word; others (`reasoning_effort`) it refuses,
        where only the server behind the name can know.
        """
        kept_back = {name: arguments.pop(name) for name in ("metadata", "user") if name in request.parameters}
        if kept_back:
            arguments["extra_body"] = {**kept_back, **(arguments.get("extra_body") or {})}
        asked = self._litellm.constants.DEFAULT_CHAT_COMPLETION_PARAM_VALUES.keys() & request.parameters.keys()
        if asked:
            arguments["allowed_openai_params"] = sorted(asked | set(arguments.get("allowed_openai_params") or ()))


class _ClosingStream:
    """Gives LiteLLM's synchronous stream the `close` that it lacks: its connection is closed with it."""

    def __init__(self, response: Any) -> None:
        self._response = response

    def close(self) -> None:
        stream = getattr(self._response, "completion_stream", None)
        if stream is not None and hasattr(stream, "close"):
            with suppress(OSError, RuntimeError, ValueError):  # closed already, or by the other side
                stream.close()


def _local_ways(deployments: Iterable[DeploymentLike]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(name, parameters) of the local models among the deployments."""
    for way in deployments:
        if way.litellm_model.startswith(LOCAL_PREFIX):
            yield way.litellm_model.removeprefix(LOCAL_PREFIX), way.parameters


def _speaks_openai(litellm: Any, deployment: DeploymentLike) -> bool:
    provider = deployment.parameters.get("custom_llm_provider") or deployment.litellm_model.partition("/")[0]
    return provider in ("openai", "azure") or provider in litellm.openai_compatible_providers


def _streamed(request: Request) -> dict[str, Any]:
    options = dict(request.parameters.get("stream_options") or {})
    return {"stream": True, "stream_options": {"include_usage": True, **options}}
