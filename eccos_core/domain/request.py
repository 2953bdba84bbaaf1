"""One thing to answer, and by when."""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from eccos_core.domain.model import Capability
from eccos_core.errors import RequestError

Message: TypeAlias = Mapping[str, Any]  # an OpenAI-style chat message
ConversationView: TypeAlias = Literal["last_user", "all_user", "everything", "agent_step"]
AUTHOR = "eccos_author"  # a key of an earlier answer among the messages: the model of the pool that wrote it
TOOL_FAILED = "eccos_tool_failed"  # a key of a tool's result: True where the tool failed. No model gets it
REASONING_FIELDS = ("reasoning_content", "thinking_blocks")  # of an answer: they go back to its author only
# The operating system seeds this generator once. Asking it for every id would release the interpreter's lock each
# time, and a busy event loop would wait to get it back. `random.seed` does not touch it, and a fork draws other ids.
_ids = random.Random()  # noqa: S311 - ids are no secrets
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ids.seed)


def new_id() -> str:
    """Return a new random identifier of 32 hexadecimal digits."""
    return f"{_ids.getrandbits(128):032x}"


@dataclass(frozen=True, slots=True)
class Deadline:
    """When a request must be answered, retries and fallbacks included. It travels with the request.

    `total_s` is how long the request had from its first call on, in seconds. `ends_at_s` is the moment it ends, in
    seconds of `time.monotonic`, so that a clock that jumps changes nothing. `is_fresh` until the first call was made.
    """

    total_s: float
    ends_at_s: float
    is_fresh: bool = True

    @classmethod
    def after(cls, seconds: float, *, now_s: float | None = None) -> Deadline:
        """Make the deadline that ends in `seconds` from now (or from `now_s`, monotonic seconds)."""
        return cls(seconds, (time.monotonic() if now_s is None else now_s) + seconds)

    @property
    def left_s(self) -> float:
        """Seconds that are left, at least 0."""
        return max(0.0, self.ends_at_s - time.monotonic())

    @property
    def is_over(self) -> bool:
        """Whether no time is left."""
        return time.monotonic() >= self.ends_at_s

    @property
    def call_timeout_s(self) -> float:
        """A timeout for the next call, in seconds. It ends before the deadline.

        A fresh deadline gives its whole time. Later, what is left is rounded down to the whole, a half, a quarter and
        so on of `total_s`. HTTP clients keep their connections by timeout, so a new number for every call would open a
        connection for every call.
        """
        left_s = max(self.left_s, 1e-3)
        if self.is_fresh or not math.isfinite(self.total_s) or left_s >= self.total_s:
            return self.total_s
        return self.total_s * 2.0 ** math.floor(math.log2(left_s / self.total_s))

    def used(self) -> Deadline:
        """Return the deadline after a first call was made."""
        return replace(self, is_fresh=False) if self.is_fresh else self


@dataclass(frozen=True, slots=True)
class Request:
    """One thing to answer.

    `messages` are OpenAI-style chat messages, at least one. `parameters` are OpenAI call parameters (temperature,
    max_tokens, tools, response_format). They reach the model unchanged. `needs` are capabilities that a model must
    have. `allow` and `deny` are model names, and None allows all. A model must carry all of `required_tags`.
    `min_quality` is the least predicted quality of this request, in [0, 1]. `policy` names one of the configuration's
    policies, and None is the usual one. `deadline_s` is how many seconds it may
    wait for a slot. The router sets `deadline` when the first call begins: all calls of the request end by then.
    """

    messages: tuple[Message, ...]
    id: str = field(default_factory=new_id)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    needs: frozenset[Capability] = frozenset()
    allow: frozenset[str] | None = None
    deny: frozenset[str] = frozenset()
    required_tags: frozenset[str] = frozenset()
    min_quality: float | None = None
    session_id: str | None = None
    tenant: str | None = None
    policy: str | None = None
    deadline_s: float | None = None
    deadline: Deadline | None = None

    def __post_init__(self) -> None:
        given: object = self.messages  # of any type, whatever the annotation says
        if not isinstance(given, list | tuple):
            kind = type(given).__name__
            raise RequestError(f"request {self.id!r}: messages is of the type {kind}, must be a list of chat messages")
        if not self.messages:
            raise RequestError(f"request {self.id!r} has no messages; give a string or at least one chat message")
        for position, message in enumerate(self.messages):
            if not isinstance(message, Mapping) or "role" not in message:
                raise RequestError(f"request {self.id!r}: messages[{position}] is not a mapping with a 'role'")
        if self.min_quality is not None and not 0 <= self.min_quality <= 1:
            raise RequestError(f"request {self.id!r}: min_quality is {self.min_quality}, must be in [0, 1]")
        if self.deadline_s is not None and not self.deadline_s >= 0:
            raise RequestError(f"request {self.id!r}: deadline_s is {self.deadline_s}, must be seconds >= 0")

    @classmethod
    def of(cls, source: str | Sequence[Message] | Request, **fields: Any) -> Request:
        """Make a request from a string (one user message) or from OpenAI-style messages.

        A `Request` is returned as it is. Raises `RequestError` for an empty string, an empty list, or anything else.
        """
        if isinstance(source, Request):
            return source
        if isinstance(source, str):
            if not source.strip():
                raise RequestError("the question is empty; give a string with at least one word")
            return cls(messages=({"role": "user", "content": source},), **fields)
        if isinstance(source, list | tuple):
            return cls(messages=tuple(source), **fields)
        raise RequestError(f"a request is a string or a list of chat messages, got {type(source).__name__}")

    def with_parameters(self, parameters: Mapping[str, Any]) -> Request:
        """Return the request with these call parameters added. They win over its own."""
        return replace(self, parameters={**self.parameters, **parameters}) if parameters else self

    def addressed_to(self, model: str) -> Request:
        """Return the request as `model` gets it, without `AUTHOR` and `TOOL_FAILED`.

        Reasoning of an earlier answer goes back to the model that wrote it, which may demand it. Another model could
        not verify its signature. An answer without `AUTHOR` is sent as you gave it.
        """
        if not any(AUTHOR in message or TOOL_FAILED in message for message in self.messages):
            return self
        return replace(self, messages=tuple(_address(message, model) for message in self.messages))

    def streamed(self) -> Request:
        """Return the request for models that can stream."""
        return replace(self, needs=self.needs | {Capability.STREAMING})


def _address(message: Message, model: str) -> Message:
    """Return a message of the history as `model` gets it."""
    if TOOL_FAILED in message:
        message = {name: value for name, value in message.items() if name != TOOL_FAILED}
    if AUTHOR not in message:
        return message
    dropped = {AUTHOR} if message[AUTHOR] == model else {AUTHOR, *REASONING_FIELDS}
    return {name: value for name, value in message.items() if name not in dropped}
