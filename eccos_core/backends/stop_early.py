"""Stops a model's thinking once its answer no longer changes (Certaindex, Fu et al. 2024, arXiv 2412.20993).

The model thinks in chunks. After each chunk a short suffix ends its thinking and asks for its answer so far. When the
last answers agree, and none is empty or hedged, it thinks no more and answers. All calls are on the bill.

Unlike the public code of the paper, answers that disagree never stop anything.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol, TypeAlias, cast

from eccos_core.backends.thinking_steps import Ask, StopEarlySettings, ThinkingSteps, Written, think_in_steps
from eccos_core.domain import Chunk, Completion, Request
from eccos_core.errors import BackendError
from eccos_core.io.tokens import text_key
from eccos_core.protocols import Backend, gives_logprobs, unsupported_parameters

USUAL_LIMIT: Final = 8192  # tokens of an answer, thinking included, where neither request nor model has a limit
_TAKEN: Final = frozenset(
    {"max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "timeout", "reasoning_effort", "user"}
    | {"presence_penalty", "frequency_penalty", "extra_headers"}
)
_log = logging.getLogger("eccos.backend")

Template: TypeAlias = Callable[[Request], str]


class TextContinuer(Protocol):
    """Continues raw text: what comes after `prompt`, at most `max_tokens` of it, with the request's parameters."""

    def continue_text(self, model: str, request: Request, prompt: str, max_tokens: int) -> Completion:
        """Return the continuation. Raises `BackendError`."""
        ...

    async def acontinue_text(self, model: str, request: Request, prompt: str, max_tokens: int) -> Completion:
        """The asynchronous twin of `continue_text`."""
        ...


@dataclass(slots=True)
class _Sum:
    """All that was called for one request, and what it has written."""

    model: str
    calls: list[Completion] = field(default_factory=list)
    thinking: str = ""
    answer: str = ""

    def add(self, written: Written) -> Chunk | None:
        """Add a piece. Returns it as a chunk of a stream, or None for an empty one."""
        self.thinking += written.thinking
        self.answer += written.answer
        delta = {"reasoning_content": written.thinking, "content": written.answer}
        delta = {name: text for name, text in delta.items() if text}
        return Chunk(text=written.answer, delta=delta) if delta else None

    def charge(self, completion: Completion) -> Completion:
        """Return a completion with all calls so far on its bill."""
        return _charge(completion, [*self.calls, completion])

    def completion(self, finish_reason: str) -> Completion:
        """Return the whole answer, with every call and every probe on its bill."""
        message = {"role": "assistant", "content": self.answer, "reasoning_content": self.thinking}
        thought = sum(call.output_tokens for call in self.calls[:-1])
        whole = _charge(self.calls[-1], self.calls)
        return replace(whole, text=self.answer, message=message, finish_reason=finish_reason, reasoning_tokens=thought)


def _charge(completion: Completion, calls: Sequence[Completion]) -> Completion:
    return replace(
        completion,
        input_tokens=sum(call.input_tokens for call in calls),
        output_tokens=sum(call.output_tokens for call in calls),
        cached_input_tokens=sum(call.cached_input_tokens for call in calls),
        cost_usd=sum(call.cost_usd for call in calls),
        latency_s=sum(call.latency_s for call in calls),
        estimated=any(call.estimated for call in calls),
    )


class StopEarlyBackend:
    """Calls the models of `backend`, and stops the thinking of those in `templates` early.

    - `continuer` continues raw text at the endpoint of a model.
    - `templates` maps a model to what turns a request into the raw text that its answer begins after.
    - `limits` maps a model to the most tokens of its answers.

    A request with tools, a response format, `stop`, `n`, log-probabilities or any other parameter that a raw call lacks
    is called as it is. So is one whose raw call fails for a reason that trying again does not mend. Its calls so far
    stay on the bill. An endpoint that has refused to continue text is not asked again.
    """

    def __init__(
        self,
        backend: Backend,
        continuer: TextContinuer,
        templates: Mapping[str, Template],
        settings: StopEarlySettings | None = None,
        limits: Mapping[str, int] | None = None,
    ) -> None:
        self.backend = backend
        self._continuer = continuer
        self._templates = dict(templates)
        self._settings = settings or StopEarlySettings()
        self._limits = dict(limits or {})
        self._refusing: set[str] = set()
        self._lock = threading.Lock()

    @property
    def fingerprint(self) -> str | None:
        """A digest of what is called, and how. None where the backend behind this one does not say."""
        inner: str | None = getattr(self.backend, "fingerprint", None)
        return None if inner is None else text_key(f"{inner} {self._settings!r} {sorted(self._templates)!r}")

    def complete(self, model: str, request: Request) -> Completion:
        """See `Backend`."""
        steps, done = self._begin(model, request), _Sum(model)
        if steps is None:
            return self.backend.complete(model, request)
        try:
            for _ in self._run(steps, done, model, request):
                pass
        except BackendError as error:
            self._check_fallback(model, error)
            return done.charge(self.backend.complete(model, request))
        return done.completion(steps.finish_reason)

    async def acomplete(self, model: str, request: Request) -> Completion:
        """See `Backend`."""
        steps, done = self._begin(model, request), _Sum(model)
        if steps is None:
            return await self.backend.acomplete(model, request)
        try:
            async with aclosing(self._arun(steps, done, model, request)) as pieces:
                async for _ in pieces:
                    pass
        except BackendError as error:
            self._check_fallback(model, error)
            return done.charge(await self.backend.acomplete(model, request))
        return done.completion(steps.finish_reason)

    def stream(self, model: str, request: Request) -> Generator[Chunk, None, None]:
        """See `Backend`. Each piece is streamed once. A stream that has begun never falls back."""
        steps, done, began = self._begin(model, request), _Sum(model), False
        if steps is not None:
            try:
                for piece in self._run(steps, done, model, request):
                    began = True
                    yield piece
                yield Chunk(text="", completion=done.completion(steps.finish_reason))
                return
            except BackendError as error:
                if began:
                    raise
                self._check_fallback(model, error)
        with closing(self.backend.stream(model, request)) as chunks:
            for chunk in chunks:
                yield self._charged(done, chunk)

    async def astream(self, model: str, request: Request) -> AsyncGenerator[Chunk, None]:
        """The asynchronous twin of `stream`."""
        steps, done, began = self._begin(model, request), _Sum(model), False
        if steps is not None:
            try:
                async with aclosing(self._arun(steps, done, model, request)) as pieces:
                    async for piece in pieces:
                        began = True
                        yield piece
                yield Chunk(text="", completion=done.completion(steps.finish_reason))
                return
            except BackendError as error:
                if began:
                    raise
                self._check_fallback(model, error)
        async with aclosing(cast(Any, self.backend.astream(model, request))) as chunks:
            async for chunk in chunks:
                yield self._charged(done, chunk)

    def unsupported_parameters(self, model: str, parameters: Mapping[str, Any]) -> frozenset[str]:
        """See `SelectiveBackend`."""
        return unsupported_parameters(self.backend, model, parameters)

    def gives_logprobs(self, model: str) -> bool:
        """See `LogprobSource`."""
        return gives_logprobs(self.backend, model)

    def close(self) -> None:
        """Close the backend behind this one, where it can be closed."""
        close = getattr(self.backend, "close", None)
        if close is not None:
            close()

    def _begin(self, model: str, request: Request) -> ThinkingSteps | None:
        """Begin to think in steps. None for a request that is called as it is."""
        template = self._templates.get(model)
        if template is None or model in self._refusing:
            return None
        given = {name: value for name, value in request.parameters.items() if value is not None}
        if given.keys() - _TAKEN or not all(isinstance(m.get("content"), str) for m in request.messages):
            return None
        limits = [given[name] for name in ("max_tokens", "max_completion_tokens") if name in given]
        limit = min(limits, default=self._limits.get(model, USUAL_LIMIT))
        return ThinkingSteps(think_in_steps(template(request), self._settings, limit))

    def _run(self, steps: ThinkingSteps, done: _Sum, model: str, request: Request) -> Iterator[Chunk]:
        for step in steps:
            if isinstance(step, Ask):
                steps.result = self._continuer.continue_text(model, request, step.prompt, step.max_tokens)
                done.calls.append(steps.result)
            elif (piece := done.add(step)) is not None:
                yield piece

    async def _arun(
        self, steps: ThinkingSteps, done: _Sum, model: str, request: Request
    ) -> AsyncGenerator[Chunk, None]:
        """The asynchronous twin of `_run`."""
        for step in steps:
            if isinstance(step, Ask):
                steps.result = await self._continuer.acontinue_text(model, request, step.prompt, step.max_tokens)
                done.calls.append(steps.result)
            elif (piece := done.add(step)) is not None:
                yield piece

    def _check_fallback(self, model: str, error: BackendError) -> None:
        """Report why a model is called as it is. Raises an error that trying again may mend."""
        if error.retryable:
            raise error
        with self._lock:
            is_new = model not in self._refusing
            self._refusing.add(model)
        if is_new:
            _log.warning(
                "%s: its endpoint does not continue raw text (%s), so its thinking is not stopped early until the "
                "configuration changes. Take it out of eccos.stop_early.templates, or serve it with vLLM or SGLang",
                model,
                error.kind,
                extra={"eccos": {"event": "stop_early_refused", "model": model, "kind": error.kind}},
            )

    def _charged(self, done: _Sum, chunk: Chunk) -> Chunk:
        if chunk.completion is None or not done.calls:
            return chunk
        return replace(chunk, completion=done.charge(chunk.completion))
