"""Embeddings through LiteLLM: texts or token ids go to a deployment, vectors and the usage come back."""

from __future__ import annotations

import asyncio
import logging
import random
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from eccos_core.backends.litellm.backend import before
from eccos_core.backends.litellm.call_loop import CALL_LOOP
from eccos_core.backends.litellm.call_parameters import is_call_parameter
from eccos_core.backends.litellm.error_mapping import NoAnswerError, to_backend_error
from eccos_core.backends.litellm.lazy_import import litellm_module
from eccos_core.backends.litellm.load_balancer import DeploymentLike, LoadBalancer
from eccos_core.backends.litellm.provider import provider_of, speaks_openai
from eccos_core.backends.litellm.redaction import SecretRedactor
from eccos_core.backends.retrying import RetryPolicy
from eccos_core.domain import Deadline
from eccos_core.errors import BackendError, UnknownModelError

EmbeddingInput: TypeAlias = str | Sequence[int]
_DECIDED_HERE = frozenset({"model", "input", "encoding_format"})
_log = logging.getLogger("eccos.backend")


@dataclass(frozen=True, slots=True)
class Embeddings:
    """What one call gave: a vector for each input, in their order, and the tokens that the provider counted, if any."""

    vectors: tuple[Sequence[float], ...] = field(repr=False)
    input_tokens: int | None


class LiteLLMEmbedder:
    """Calls embedding models, each through its deployments. Safe to use from several event loops.

    `deployments` maps a model's name to its deployments, which are balanced as those of chat models are. `retries` says
    how often a call that failed is made again. `timeout_s` is the longest wait where a deployment names none.
    """

    def __init__(
        self,
        deployments: Mapping[str, Sequence[DeploymentLike]],
        retries: RetryPolicy | None = None,
        *,
        timeout_s: float = 120.0,
    ) -> None:
        self._balancers = {name: LoadBalancer(ways) for name, ways in deployments.items()}
        self._scrubber = SecretRedactor.for_parameters(way.parameters for ways in deployments.values() for way in ways)
        self._retries, self._timeout_s = retries or RetryPolicy(), timeout_s
        self._clients: dict[int, Any] = {}  # OpenAI's client by deployment

    async def aembed(
        self, model: str, inputs: Sequence[EmbeddingInput], parameters: Mapping[str, Any] | None = None
    ) -> Embeddings:
        """Embed texts or lists of token ids. `parameters` (`dimensions`, `user`, ...) go to the provider.

        Raises `BackendError` when the last attempt failed, and `UnknownModelError`. Cancelling the task cancels the
        call.
        """
        balancer = self._balancers.get(model)
        if balancer is None:
            raise UnknownModelError(model, self._balancers)
        await asyncio.to_thread(litellm_module)
        deadline, attempt = Deadline.after(self._retries.deadline_s), 0
        while True:
            attempt += 1
            try:
                return await CALL_LOOP.arun(self._call(model, balancer, list(inputs), dict(parameters or {}), deadline))
            except BackendError as error:
                draw = random.random()  # noqa: S311 - chance, not secrets
                wait_s = self._retries.next_wait_s(attempt, error, deadline, draw)
                if wait_s is None:
                    raise
            await asyncio.sleep(wait_s)

    async def _call(
        self, model: str, balancer: LoadBalancer, inputs: list[Any], parameters: dict[str, Any], deadline: Deadline
    ) -> Embeddings:
        try:
            with balancer.choose() as deployment:
                try:
                    arguments = self._arguments(deployment, parameters, deadline)
                    call = litellm_module().aembedding(input=inputs, **arguments)
                    response = await before(Deadline.after(arguments["timeout"]), call)
                    return _read_vectors(response, len(inputs))
                except Exception as error:
                    raise self._translate(model, deployment, error) from error
        except BackendError as error:
            told = balancer.redirect(error)
            told.__cause__ = told.__context__ = None  # LiteLLM's exceptions hold the request, and with it the key
            raise told.with_traceback(None) from None

    def _arguments(
        self, deployment: DeploymentLike, parameters: Mapping[str, Any], deadline: Deadline
    ) -> dict[str, Any]:
        given = {name: value for name, value in deployment.parameters.items() if is_call_parameter(name)}
        arguments = {name: value for name, value in {**given, **parameters}.items() if name not in _DECIDED_HERE}
        arguments.pop("stream_timeout", None)
        arguments["timeout"] = min(given.get("timeout") or self._timeout_s, deadline.call_timeout_s)
        if speaks_openai(deployment):
            arguments["encoding_format"] = "float"
            asked = parameters.keys() & {"dimensions", "user"}  # LiteLLM refuses `dimensions` of names that it dislikes
            allowed = asked | set(given.get("allowed_openai_params") or ())
            if allowed:
                arguments["allowed_openai_params"] = sorted(allowed)
        if provider_of(deployment) == "openai":
            arguments["client"] = self._client(deployment)
        return {**arguments, "model": deployment.litellm_model, "max_retries": 0, "num_retries": 0}

    def _client(self, deployment: DeploymentLike) -> Any:
        """Return OpenAI's client of a deployment. LiteLLM's own would call again by rules of its own."""
        client = self._clients.get(id(deployment))
        if client is None:  # all calls run on one loop, so nothing is opened twice
            from openai import AsyncOpenAI

            given = deployment.parameters
            client = self._clients[id(deployment)] = AsyncOpenAI(
                api_key=given.get("api_key"),
                base_url=given.get("api_base") or given.get("base_url"),
                organization=given.get("organization"),
                max_retries=0,
            )
        return client

    def _translate(self, model: str, deployment: DeploymentLike, error: Exception) -> BackendError:
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("%s", self._scrubber.redact("".join(traceback.format_exception(error))))
        api_base = deployment.parameters.get("api_base")
        return to_backend_error(model, error, self._scrubber, api_base)


def _read_vectors(response: Any, count: int) -> Embeddings:
    """Read LiteLLM's answer. Raises `NoAnswerError` where a vector is missing or is none."""
    found: dict[int, Sequence[float]] = {}
    for place, each in enumerate(getattr(response, "data", None) or ()):
        item = each if isinstance(each, Mapping) else each.model_dump()
        vector, index = item.get("embedding"), item.get("index")
        if isinstance(vector, list) and vector and all(isinstance(number, int | float) for number in vector):
            found[index if isinstance(index, int) else place] = vector
    if set(found) != set(range(count)):
        raise NoAnswerError(f"the provider gave {len(found)} vectors for {count} inputs")
    tokens = getattr(getattr(response, "usage", None), "prompt_tokens", None)
    counted = tokens if isinstance(tokens, int) and tokens > 0 else None  # LiteLLM says 0 where nothing is reported
    return Embeddings(tuple(found[place] for place in range(count)), counted)
