"""Conversations stay on their model while that is right: leaving it loses the provider's prompt cache.

What is lost has a price, and that price is a term of the decision, not a rule: on the session's model the part of the
input that it has seen is charged at the cached-input price, on every other model in full. So a conversation stays until
a better or cheaper model is worth more than the cache.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from eccos_core.domain import Completion, FloatArray, Model, Request


@dataclass(frozen=True, slots=True)
class _Seen:
    """The model that a session is on, how many tokens of it that model has seen, and when."""

    model: str
    tokens: int
    at: float


class Sessions:
    """Remembers which model each conversation is on. Safe to use from several threads.

    `max_sessions`: most sessions kept, the longest unused are forgotten first; `idle_s`: a session unused for longer is
    taken as new, since providers drop their prompt caches too. `clock` gives seconds and never goes back.
    """

    def __init__(
        self, max_sessions: int = 10_000, idle_s: float = 3600.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._remembered = max_sessions
        self._idle_s = idle_s
        self._clock = clock
        self._seen: OrderedDict[str, _Seen] = OrderedDict()
        self._lock = threading.Lock()

    def model_of(self, session_id: str | None) -> str | None:
        """The model that the conversation is on, or None."""
        seen = self._current(session_id)
        return seen.model if seen is not None else None

    def cached_tokens(
        self, requests: Sequence[Request], models: Sequence[Model], input_tokens: FloatArray
    ) -> FloatArray | None:
        """How much of each request's input each model has probably cached: (R, M) tokens; None when nothing is.

        input_tokens (R,). What a model saw of a conversation is at most the whole input.
        """
        known = [(row, seen) for row, each in enumerate(requests) if (seen := self._current(each.session_id))]
        if not known:
            return None
        cached = np.zeros((len(requests), len(models)))
        columns = {model.name: column for column, model in enumerate(models)}
        for row, seen in known:
            if seen.model in columns:
                cached[row, columns[seen.model]] = min(float(seen.tokens), input_tokens[row])
        return cached

    def record_completion(self, session_id: str | None, completion: Completion) -> None:
        """The conversation is now on the model that answered, which has seen the question and its own answer."""
        if session_id is None:
            return
        seen = _Seen(completion.model, completion.input_tokens + completion.output_tokens, self._clock())
        with self._lock:
            self._seen[session_id] = seen
            self._seen.move_to_end(session_id)
            while len(self._seen) > self._remembered:
                self._seen.popitem(last=False)

    def _current(self, session_id: str | None) -> _Seen | None:
        if session_id is None:
            return None
        with self._lock:
            seen = self._seen.get(session_id)
        return seen if seen is not None and self._clock() - seen.at <= self._idle_s else None
