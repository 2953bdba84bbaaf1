"""The `Backend` that calls every model through LiteLLM: hosted APIs, OpenAI-compatible servers, local models.

One call is one HTTP request. The retries of LiteLLM and of the provider's client are off. They belong to one place,
`eccos_core.backends.retrying`, where they honour one deadline.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import traceback
from collections.abc import AsyncGenerator, Awaitable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from functools import cached_property, partial
from typing import Any, TypeVar

from eccos_core.backends.litellm.call_loop import CALL_LOOP
from eccos_core.backends.litellm.call_parameters import is_call_parameter
from eccos_core.backends.litellm.continuation import continuation_arguments, open_client, read_continuation
from eccos_core.backends.litellm.error_mapping import to_backend_error
from eccos_core.backends.litellm.lazy_import import litellm_module
from eccos_core.backends.litellm.load_balancer import DeploymentLike, LoadBalancer, SimpleDeployment
from eccos_core.backends.litellm.provider import speaks_openai, taken_parameters, unsupported
from eccos_core.backends.litellm.redaction import SecretRedactor
from eccos_core.backends.litellm.register_prices import register_prices
from eccos_core.backends.litellm.responses import CallRecord, StreamAssembly
from eccos_core.backends.local.registry import LOCAL_PREFIX, local_models, read_claims
from eccos_core.domain import Chunk, Completion, Deadline, Model, Request
from eccos_core.errors import BackendError, InputError, UnknownModelError
from eccos_core.io.tokens import text_key

Result = TypeVar("Result")
_log = logging.getLogger("eccos.backend")
DECIDED_HERE = frozenset({"model", "messages", "stream", "stream_options"})


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
        shared: dict[tuple[str, tuple[int, ...]], LoadBalancer] = {}  # by deployment: its efforts share what is known
        self._balancers = {
            name: shared.setdefault((self._models[name].deployment, tuple(map(id, ways))), LoadBalancer(ways))
            for name, ways in reached.items()
        }
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
        self._text_clients: dict[int, Any] = {}  # of deployments whose raw text is continued

    @cached_property
    def litellm_models(self) -> Mapping[str, tuple[str, ...]]:
        """LiteLLM's names of the deployments of each model of the pool, such as `openai/gpt-4o-mini`."""
        named: dict[str, dict[str, None]] = {}
        for way, model in self._deployments:
            named.setdefault(model.name, {})[way.litellm_model] = None
        return {name: tuple(each) for name, each in named.items()}

    @cached_property
    def fingerprint(self) -> str:
        """A digest of what is called, and where. It knows no keys. Caches tell two pools apart by it."""
        called = [(model.name, way.litellm_model, dict(way.parameters)) for way, model in self._deployments]
        return text_key(self._scrubber.redact(json.dumps(called, sort_keys=True, default=str)))

    def complete(self, model: str, request: Request) -> Completion:
        """See `Backend`."""
        self._ready()
        return CALL_LOOP.run(self._complete(model, request))

    async def acomplete(self, model: str, request: Request) -> Completion:
        """See `Backend`. Cancelling the task cancels the call."""
        await self._aready()
        return await CALL_LOOP.arun(self._complete(model, request))

    def stream(self, model: str, request: Request) -> Generator[Chunk, None, None]:
        """See `Backend`. Closing the iterator, or dropping it, closes the connection."""
        self._ready()
        yield from CALL_LOOP.iterate(self._stream(model, request))

    async def astream(self, model: str, request: Request) -> AsyncGenerator[Chunk, None]:
        """See `Backend`. Closing the iterator, or cancelling its task, closes the connection."""
        await self._aready()
        async with aclosing(CALL_LOOP.aiterate(self._stream(model, request))) as chunks:
            async for chunk in chunks:
                yield chunk

    def continue_text(self, model: str, request: Request, prompt: str, max_tokens: int) -> Completion:
        """See `TextContinuer`: the endpoint's `/v1/completions`."""
        self._ready()
        return CALL_LOOP.run(self._continue_text(model, request, prompt, max_tokens))

    async def acontinue_text(self, model: str, request: Request, prompt: str, max_tokens: int) -> Completion:
        """See `TextContinuer`."""
        await self._aready()
        return await CALL_LOOP.arun(self._continue_text(model, request, prompt, max_tokens))

    async def _continue_text(self, model: str, request: Request, prompt: str, max_tokens: int) -> Completion:
        with self._call(model, request) as call:
            call.sent = True
            client = self._text_clients.get(id(call.deployment))
            if client is None:  # all calls run on one loop, so nothing is opened twice
                client = self._text_clients[id(call.deployment)] = open_client(call.deployment)
            arguments = continuation_arguments(call.deployment, request, self._timeout_s)
            arguments["client"] = client.with_options(timeout=arguments["timeout"])
            opening = self._litellm.atext_completion(prompt=prompt, max_tokens=max_tokens, **arguments)
            return read_continuation(call, await before(request.deadline, opening))

    async def _complete(self, model: str, request: Request) -> Completion:
        with self._call(model, request) as call:
            response = await before(request.deadline, self._litellm.acompletion(**self._arguments(call)))
            return call.completion(response)

    async def acomplete_over(self, model: str, request: Request, client: Any, *, is_logged: bool = True) -> Completion:
        """Do as `acomplete`, over an HTTP client of yours, on the event loop of the caller.

        The client is of the kind that LiteLLM wants for the provider. With `is_logged` False, LiteLLM's callbacks do
        not hear of the call.
        """
        await self._aready()
        with self._call(model, request) as call:
            arguments = self._arguments(call) | {"client": client}
            if not is_logged:
                arguments["no-log"] = True
            return call.completion(await before(request.deadline, self._litellm.acompletion(**arguments)))

    async def _stream(self, model: str, request: Request) -> AsyncGenerator[Chunk, None]:
        with self._call(model, request) as call:
            assembly = StreamAssembly(call)
            with self._raise_interrupted(call, assembly):
                opening = self._litellm.acompletion(**self._arguments(call), **_streamed(request))
                response = await before(request.deadline, opening)
                async with aclosing(response):
                    while (chunk := await before(request.deadline, anext(response, None))) is not None:
                        if (piece := assembly.take(chunk)) is not None:
                            yield piece
                completion = assembly.build_completion(response)
        yield Chunk(text="", completion=completion)

    def unsupported_parameters(self, model: str, parameters: Mapping[str, Any]) -> frozenset[str]:
        """See `SelectiveBackend`. A parameter that one deployment does not take is one that the model does not take."""
        balancer = self._balancers.get(model)
        if balancer is None:
            raise UnknownModelError(model, self._balancers)
        return frozenset().union(*(unsupported(way, parameters) for way in balancer.deployments))

    def gives_logprobs(self, model: str) -> bool:
        """See `LogprobSource`. It is what LiteLLM says of every deployment of the model. Local models give them."""
        balancer = self._balancers.get(model)
        if balancer is None:
            raise UnknownModelError(model, self._balancers)
        return all(_gives_logprobs(way) for way in balancer.deployments)

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
            ours = [(way.litellm_model, model) for way, model in self._deployments if speaks_openai(way)]
            self._priced_by_us = register_prices(litellm, ours)
            self._litellm = litellm
        return self._litellm

    async def _aready(self) -> None:
        if self._litellm is None:
            await asyncio.to_thread(self._ready)

    @contextmanager
    def _call(self, model: str, request: Request) -> Iterator[CallRecord]:
        """One call to one of the model's deployments; what it raises leaves as a `BackendError`."""
        balancer = self._balancers.get(model)
        if balancer is None:
            raise UnknownModelError(model, self._balancers)
        try:
            with balancer.choose() as deployment:
                known = deployment.litellm_model not in self._priced_by_us
                measured = partial(self.usd_per_token, model) if model in self._usd_per_gpu_hour else None
                call = CallRecord(
                    self._models[model], request, deployment, time.perf_counter(), measured, litellm_knows_price=known
                )
                try:
                    yield call
                except BackendError:
                    raise
                except Exception as error:
                    raise self._translate(call, error) from error
        except BackendError as error:
            raise _detached(balancer.redirect(error)) from None

    @contextmanager
    def _raise_interrupted(self, call: CallRecord, assembly: StreamAssembly) -> Iterator[None]:
        """Says how much of a stream had arrived when it broke."""
        try:
            yield
        except BackendError as error:
            raise assembly.broken(error) from error
        except Exception as error:
            raise assembly.broken(self._translate(call, error)) from error

    def _translate(self, call: CallRecord, error: Exception) -> BackendError:
        parameters = call.deployment.parameters
        scrubber, api_base = self._scrubber, parameters.get("api_base")
        own = {k: v for k, v in call.request.parameters.items() if isinstance(v, str) or k == "extra_headers"}
        if own:  # a key may be among them, where the configuration allows it
            scrubber = SecretRedactor.for_parameters([parameters, own])
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("%s", scrubber.redact("".join(traceback.format_exception(error))))
        return to_backend_error(call.model.name, error, scrubber, api_base, sent=call.sent)

    def _arguments(self, call: CallRecord) -> dict[str, Any]:
        """Keyword arguments of LiteLLM's call: the deployment's, then the request's, which win."""
        deployment, request = call.deployment, call.request

        def note_sent(_: object) -> None:  # no bound method: LiteLLM copies those, and what they belong to
            call.sent = True

        given = deployment.parameters.items()
        arguments = {name: value for name, value in given if is_call_parameter(name) and name not in DECIDED_HERE}
        arguments |= {name: value for name, value in request.parameters.items() if name not in DECIDED_HERE}
        arguments.setdefault("timeout", self._timeout_s)
        if speaks_openai(deployment):
            self._pass_everything_on(arguments, request)
        return {
            **arguments,
            "model": deployment.litellm_model,
            "messages": [dict(message) for message in request.messages],
            "max_retries": 0,
            "num_retries": 0,
            "logger_fn": note_sent,
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


async def before(deadline: Deadline | None, work: Awaitable[Result]) -> Result:
    """Await until the deadline. Raises `TimeoutError` then, whatever still arrives."""
    if deadline is None:
        return await work
    limit = asyncio.timeout(deadline.left_s)
    try:
        async with limit:
            return await work
    except Exception as error:
        if limit.expired():
            raise TimeoutError(f"no whole answer within the deadline of {deadline.total_s:g} s") from error
        raise


def _gives_logprobs(deployment: DeploymentLike) -> bool:
    return deployment.litellm_model.startswith(LOCAL_PREFIX) or "logprobs" in (taken_parameters(deployment) or ())


def _detached(error: BackendError) -> BackendError:
    """The error without what caused it. LiteLLM's exceptions hold the request, and with it the key."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _local_ways(deployments: Iterable[DeploymentLike]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(name, parameters) of the local models among the deployments."""
    for way in deployments:
        if way.litellm_model.startswith(LOCAL_PREFIX):
            yield way.litellm_model.removeprefix(LOCAL_PREFIX), way.parameters


def _streamed(request: Request) -> dict[str, Any]:
    options = dict(request.parameters.get("stream_options") or {})
    return {"stream": True, "stream_options": {"include_usage": True, **options}}
