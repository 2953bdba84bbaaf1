"""From LiteLLM's responses and chunks to `Completion` and `Chunk`; usage and cost on each.

What a model says is handed on as it is, but for half characters. An empty answer is an answer with the text "", and the
arguments of a tool call are the model's own characters even where they are not JSON. A response without any choice is
malformed. An empty answer that a content filter left over is a content-policy failure.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from eccos_core.backends.litellm.error_mapping import NoAnswerError
from eccos_core.backends.litellm.lazy_import import litellm_module
from eccos_core.backends.litellm.load_balancer import DeploymentLike
from eccos_core.backends.litellm.usage import Usage
from eccos_core.domain import Chunk, Completion, Model, Request
from eccos_core.errors import BackendError, FailureKind, StreamInterrupted
from eccos_core.io.safe_text import repair

PRICE_KEYS = ("input_cost_per_token", "output_cost_per_token")


@dataclass(slots=True)
class CallRecord:
    """One call that is under way: which model, for which request, by which deployment, since when (perf_counter s).

    `sent` says that LiteLLM had made the request ready and handed it to the network.
    `measured_usd_per_token`: what a token costs on a local model that is priced by the GPU-hour; None for others.
    `litellm_knows_price`: whether LiteLLM's own sum counts; False where it knows the price from us alone.
    """

    model: Model
    request: Request
    deployment: DeploymentLike
    started: float
    measured_usd_per_token: Callable[[], float | None] | None = None
    litellm_knows_price: bool = True
    sent: bool = False

    def cost_usd(self, usage: Usage, litellm_cost_usd: float | None) -> float:
        """USD of the call: measured GPU time, else the price that the configuration gives, else LiteLLM's own sum
        (which knows tiers and cache writes), else the pool's price for this model."""
        per_token = self.measured_usd_per_token() if self.measured_usd_per_token is not None else None
        if per_token is not None:
            return (usage.input_tokens + usage.output_tokens) * per_token
        if litellm_cost_usd and litellm_cost_usd > 0 and not usage.estimated and self.priced_by_litellm():
            return litellm_cost_usd
        model = self.model
        if model.context_price is not None:
            return float(model.call_usd(usage.input_tokens, usage.output_tokens))
        cached_price = _first(model.usd_per_cached_input_token, model.usd_per_input_token)
        reasoning_price = _first(model.usd_per_reasoning_token, model.usd_per_output_token)
        fresh = usage.input_tokens - usage.cached_input_tokens
        spoken = usage.output_tokens - usage.reasoning_tokens
        return (
            fresh * model.usd_per_input_token
            + usage.cached_input_tokens * cached_price
            + spoken * model.usd_per_output_token
            + usage.reasoning_tokens * reasoning_price
        )

    def priced_by_litellm(self) -> bool:
        """Whether LiteLLM's sum is the price: not where the configuration gives one, free of charge included."""
        free = self.model.usd_per_input_token == 0 and self.model.usd_per_output_token == 0
        told = (self.deployment.parameters, self.deployment.model_info)
        configured = any(mapping.get(key) is not None for mapping in told for key in PRICE_KEYS)
        return self.litellm_knows_price and not free and not configured and self.model.context_price is None

    def completion(self, response: Any) -> Completion:
        """From LiteLLM's `ModelResponse`. Raises `NoAnswerError`, and `BackendError` (content_policy)."""
        choices = getattr(response, "choices", None)
        if not choices:
            raise NoAnswerError("the provider answered with no choices")
        choice = choices[0]
        message = choice.message.model_dump(exclude_none=True)
        usage = self.usage(response, message)
        return self.answer(message, choice.finish_reason, usage, _litellm_cost(response), None, _logprobs(choice))

    def usage(self, response: Any, message: Mapping[str, Any]) -> Usage:
        """The tokens of an answer, by what `response` reports."""
        return Usage.of(getattr(response, "usage", None), self.model, self.request, message)

    def answer(
        self,
        message: Mapping[str, Any],
        finish_reason: str | None,
        usage: Usage,
        litellm_cost_usd: float | None,
        first_token_s: float | None,
        logprobs: Mapping[str, Any] | None = None,
    ) -> Completion:
        """The completion of this call. Raises `BackendError` (content_policy) for an answer that was filtered away.

        Half characters in the message are repaired, so that you can encode it, and send it back.
        """
        message = repair(dict(message))
        text = message.get("content")
        text = text if isinstance(text, str) else ""
        if finish_reason == "content_filter" and not text:
            raise BackendError(
                self.model.name,
                "a content filter removed the whole answer",
                retryable=False,
                kind=FailureKind.CONTENT_POLICY,
            )
        return Completion(
            text=text,
            model=self.model.name,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cost_usd=self.cost_usd(usage, litellm_cost_usd),
            latency_s=time.perf_counter() - self.started,
            message={**message, "content": message.get("content") if message.get("tool_calls") else text},
            finish_reason=finish_reason,
            time_to_first_token_s=first_token_s,
            cached_input_tokens=usage.cached_input_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            estimated=usage.estimated,
            logprobs=logprobs,
        )


class StreamAssembly:
    """Gathers the chunks of one streamed answer."""

    def __init__(self, call: CallRecord) -> None:
        self._call = call
        self._chunks: list[Any] = []
        self._pieces: list[str] = []
        self._plain = True  # text only: no tool calls, no reasoning
        self._finish_reason: str | None = None
        self._last: Any = None  # the chunk with the usage
        self._logprobs: list[Any] = []
        self._first_token_s: float | None = None

    def take(self, chunk: Any) -> Chunk | None:
        """One of LiteLLM's chunks; None when it carries nothing for the reader (usage, end)."""
        self._chunks.append(chunk)
        self._last = chunk if getattr(chunk, "usage", None) is not None else self._last
        choice = next((one for one in chunk.choices if one.index == 0), None)
        if choice is None:
            return None
        self._finish_reason = choice.finish_reason or self._finish_reason
        self._logprobs += (_logprobs(choice) or {}).get("content") or ()
        delta = {name: repair(value) for name, value in choice.delta.model_dump(exclude_none=True).items() if value}
        if not delta.keys() - {"role", "provider_specific_fields"}:
            return None
        if self._first_token_s is None:
            self._first_token_s = time.perf_counter() - self._call.started
        text = delta.get("content", "")
        self._plain = self._plain and not delta.keys() - {"role", "content", "provider_specific_fields"}
        self._pieces.append(text)
        return Chunk(text=text, delta=delta)

    def build_completion(self, response: Any) -> Completion:
        """Build the whole answer, when LiteLLM's stream has ended.

        Raises `NoAnswerError` for a body that was no stream of an answer, such as HTML, and `ConnectionError` for a
        stream that ended in its middle.
        """
        if response.received_finish_reason is None:
            if self._first_token_s is None:
                raise NoAnswerError("the body is no stream of an answer, but such as HTML or one JSON document")
            raise ConnectionError("the stream ended without saying why")
        text = "".join(self._pieces)
        # LiteLLM ends a stream with a count of its own where the provider gave none
        reported = self._last if any(getattr(chunk, "usage", None) is not None for chunk in response.chunks) else None
        if self._plain:
            message: dict[str, Any] = {"role": "assistant", "content": text}
        else:
            built = litellm_module().stream_chunk_builder(self._chunks)
            message = built.choices[0].message.model_dump(exclude_none=True)
        usage = self._call.usage(reported, message)
        cost_usd = self._litellm_cost(usage)
        finish_reason = self._finish_reason or response.received_finish_reason
        logprobs = {"content": self._logprobs} if self._logprobs else None
        return self._call.answer(message, finish_reason, usage, cost_usd, self._first_token_s, logprobs)

    def broken(self, error: BackendError) -> BackendError:
        """What to raise when the stream failed: the error itself while nothing has arrived, else how much had."""
        if self._first_token_s is None or isinstance(error, StreamInterrupted):
            return error
        message = str(error).removeprefix(f"{error.model}: ")
        return StreamInterrupted(error.model, message, received="".join(self._pieces), kind=error.kind)

    def _litellm_cost(self, usage: Usage) -> float | None:
        """LiteLLM's own sum for the reported usage. None where its price map does not know the model."""
        if not self._call.priced_by_litellm() or usage.estimated:
            return None
        litellm = litellm_module()
        name = self._call.deployment.litellm_model
        if name not in litellm.model_cost and name.partition("/")[2] not in litellm.model_cost:
            return None
        response = litellm.ModelResponse(model=name, usage=self._last.usage)
        cost: float = litellm.completion_cost(completion_response=response, model=name) if usage.output_tokens else 0.0
        return cost


def _litellm_cost(response: Any) -> float | None:
    """What LiteLLM computed while it answered."""
    hidden = getattr(response, "_hidden_params", None) or {}
    cost = hidden.get("response_cost")
    return float(cost) if isinstance(cost, int | float) else None


def _logprobs(choice: Any) -> dict[str, Any] | None:
    """The log-probabilities of a choice, OpenAI-style."""
    found: Any = getattr(choice, "logprobs", None)
    return found.model_dump(exclude_none=True) if hasattr(found, "model_dump") else found or None


def _first(price: float | None, otherwise: float) -> float:
    return otherwise if price is None else price
