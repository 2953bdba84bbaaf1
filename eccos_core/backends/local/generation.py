"""One request to a local model: what was asked, where it stands, and what is delivered."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from eccos_core.backends.local.detokenize import IncrementalDetokenizer
from eccos_core.backends.local.model import LoadedModel
from eccos_core.domain import Message
from eccos_core.errors import BackendError

TOKENS_WITHOUT_A_WINDOW = 4096  # longest answer of a model whose configuration names no context window


@dataclass(frozen=True, slots=True)
class Generation:
    """One request to a local model. `temperature` 0 is greedy; None takes the model's own generation settings.

    `logprobs` asks for the log-probability of each token of the answer.
    """

    messages: tuple[Message, ...]
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    stream: bool = False
    logprobs: bool = False


@dataclass(frozen=True, slots=True)
class Generated:
    """A finished answer. `output_tokens` counts every token that the model produced, the end-of-text token included.

    `logprobs` are OpenAI-style, None where nobody asked. They are those of the model itself, at temperature 1 and
    without a nucleus, and leave the end-of-text token out.
    """

    text: str
    finish_reason: str
    input_tokens: int
    output_tokens: int
    logprobs: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class GeneratedPiece:
    """Some more text of an answer that is still being written."""

    text: str


Delivery: TypeAlias = GeneratedPiece | Generated | BackendError
Deliver: TypeAlias = Callable[[Delivery], None]


@dataclass(frozen=True, slots=True)
class EngineStatistics:
    """What an engine has done. `busy_s`: seconds at work. `kv_limit`: tokens that the cache may hold now, padding
    included, None without a limit. `kv_peak`: most that it held. `preempted`: requests that started over for room."""

    device: str
    running: int
    waiting: int
    kv_limit: int | None
    kv_peak: int
    preempted: int
    input_tokens: int
    output_tokens: int
    busy_s: float

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens, input and output together, per second at work, all requests together: the number that turns a price
        per GPU-hour into a price per token. None before the first answer."""
        tokens = self.input_tokens + self.output_tokens
        return tokens / self.busy_s if tokens and self.busy_s > 0 else None


@dataclass(slots=True, eq=False)
class GenerationRow:
    """One request in the worker's hands."""

    generation: Generation
    deliver: Deliver
    cancelled: threading.Event
    ids: list[int] = field(default_factory=list)
    text: IncrementalDetokenizer | None = None
    limit: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    draws: random.Random | None = None
    output: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    next_draw: float | None = None

    @property
    def context(self) -> list[int]:
        """The prompt and what was generated: what a row that starts over has to read."""
        return self.ids + self.output

    def draw(self) -> float:
        """Return the random number of the next token in [0, 1). It stays the same until the token is taken."""
        if self.next_draw is None:
            self.next_draw = self.draws.random() if self.draws else 0.0
        return self.next_draw

    def prepare(self, name: str, loaded: LoadedModel, max_kv_tokens: int | None = None) -> None:
        """Tokenise, check against the model's limits and fill in its defaults; harmless when done before.

        Raises `BackendError` (bad_request, context_window).
        """
        if self.ids:
            return
        generation, window = self.generation, loaded.context_window
        try:
            ids = loaded.prompt_ids(generation.messages)
        except Exception as error:  # chat templates raise what their authors like
            raise _refused(name, f"the messages cannot be rendered: {error}", "bad_request") from error
        if not ids:
            raise _refused(name, "the prompt is empty", "bad_request")
        if window is not None and len(ids) + (generation.max_tokens or 1) > window:
            asked = f"{len(ids)} prompt tokens and {generation.max_tokens or 1} output tokens"
            raise _refused(name, f"{asked} do not fit into the context window of {window} tokens", "context_window")
        if max_kv_tokens is not None and len(ids) + (generation.max_tokens or 1) > max_kv_tokens:
            asked = f"{len(ids)} prompt tokens and {generation.max_tokens or 1} output tokens"
            raise _refused(name, f"{asked} do not fit into max_kv_tokens, which is {max_kv_tokens}", "context_window")
        bounds = [bound for bound in (window, max_kv_tokens) if bound is not None]
        room = min(bounds) - len(ids) if bounds else TOKENS_WITHOUT_A_WINDOW
        self.limit = generation.max_tokens or min(room, loaded.max_new_tokens or room)
        self.temperature = loaded.temperature if generation.temperature is None else generation.temperature
        self.top_p = loaded.top_p if generation.top_p is None else generation.top_p
        if generation.temperature is None and generation.top_p is not None and self.temperature == 0:
            self.temperature = 1.0  # who asks for a nucleus wants to sample
        self.draws = random.Random(generation.seed)  # noqa: S311 - sampling, not secrets
        if generation.stream or generation.stop:
            self.text = IncrementalDetokenizer(loaded.decode, generation.stop)
        self.ids = ids

    def take(self, token: int, end_ids: frozenset[int], logprob: float | None = None) -> None:
        """One more token of the answer, with its log-probability where the request asks for it."""
        self.output.append(token)
        self.next_draw = None
        if logprob is not None:
            self.logprobs.append(logprob)
        if self.text is not None and token not in end_ids:
            self.text.append(token)
            if self.generation.stream and (piece := self.text.release()):
                self.deliver(GeneratedPiece(piece))

    def finish_reason(self, end_ids: frozenset[int]) -> str | None:
        """Why the answer is finished ("stop", "length"); None while it is not."""
        if self.output[-1] in end_ids or (self.text is not None and self.text.stopped):
            return "stop"
        return "length" if len(self.output) >= self.limit else None

    def finish(self, loaded: LoadedModel, reason: str) -> None:
        """Deliver the finished answer."""
        if self.text is None:
            text = loaded.decode([token for token in self.output if token not in loaded.end_ids])
        else:
            self.text.finish()
            text = self.text.text
            if self.generation.stream and (piece := self.text.release(final=True)):
                self.deliver(GeneratedPiece(piece))
        logprobs = self._written_logprobs(loaded) if self.generation.logprobs else None
        self.deliver(Generated(text, reason, len(self.ids), len(self.output), logprobs))

    def _written_logprobs(self, loaded: LoadedModel) -> dict[str, Any]:
        """OpenAI's `logprobs` object: one entry for each token of the answer."""
        pairs = zip(self.output, self.logprobs, strict=True)
        spoken = [(loaded.decode([token]), logprob) for token, logprob in pairs if token not in loaded.end_ids]
        return {
            "content": [
                {"token": text, "logprob": logprob, "bytes": list(text.encode()), "top_logprobs": []}
                for text, logprob in spoken
            ]
        }


def _refused(name: str, message: str, kind: str) -> BackendError:
    return BackendError(name, message, retryable=False, kind=kind, status_code=400)


class GenerationHandle:
    """A submitted request. `cancel` makes the model stop working on it; nothing more is delivered soon after."""

    __slots__ = ("_cancelled",)

    def __init__(self, cancelled: threading.Event) -> None:
        self._cancelled = cancelled

    def cancel(self) -> None:
        """Stop; harmless when already finished."""
        self._cancelled.set()
