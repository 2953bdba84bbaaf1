"""Conversations stay on their model while that is right: leaving it loses the provider's prompt cache.

What is lost has a price, and that price is a term of the decision, not a rule: the part of the input that a model has
seen in this conversation is charged at its cached-input price, the rest in full. So a conversation stays until a better
or cheaper model is worth more than the cache.

A provider keeps the cache of a prompt for minutes after its last use, whoever was asked in between: Anthropic for five,
OpenAI for five to ten (their guides on prompt caching). So a model that was left a moment ago still has what it saw.
Coming back to it costs what is new since then.
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
    """How many tokens of a session a model has seen, and when."""

    tokens: int
    at: float


class Sessions:
    """Remembers which model each conversation is on. Safe to use from several threads.

    `max_sessions`: most sessions kept, the longest unused are forgotten first. `idle_s`: a session in which no model
    was asked for longer is new. `cache_s`: how long a provider keeps the cache of a prompt after its last use. A model
    that was not asked for longer in a session has nothing of it cached. `Model.cache_lifetime_s` goes before it.
    `clock` gives seconds and never goes back.
    """

    def __init__(
        self,
        max_sessions: int = 10_000,
        idle_s: float = 3600.0,
        cache_s: float = 300.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._remembered = max_sessions
        self._idle_s, self._cache_s = idle_s, cache_s
        self._clock = clock
        self._seen: OrderedDict[str, dict[str, _Seen]] = OrderedDict()
        self._lock = threading.Lock()

    def model_of(self, session_id: str | None) -> str | None:
        """The model that the conversation is on, or None."""
        return next(reversed(self._current(session_id)), None)

    def cached_tokens(
        self, requests: Sequence[Request], models: Sequence[Model], input_tokens: FloatArray
    ) -> FloatArray | None:
        """How much of each request's input each model has probably cached: (R, M) tokens; None for new conversations.

        input_tokens (R,). Every model keeps what it last saw of a conversation, at most the whole input.
        """
        known = [(row, seen) for row, each in enumerate(requests) if (seen := self._current(each.session_id))]
        if not known:
            return None
        cached = np.zeros((len(requests), len(models)))
        now = self._clock()
        for row, models_seen in known:
            for column, model in enumerate(models):
                one = models_seen.get(model.name)
                if one is not None and now - one.at <= self._lifetime_s(model):
                    cached[row, column] = min(float(one.tokens), input_tokens[row])
        return cached

    def _lifetime_s(self, model: Model) -> float:
        return self._cache_s if model.cache_lifetime_s is None else model.cache_lifetime_s

    def record_completion(self, session_id: str | None, completion: Completion) -> None:
        """The conversation is now on the model that answered, which has seen the question and its own answer."""
        if session_id is None:
            return
        seen = _Seen(completion.input_tokens + completion.output_tokens, self._clock())
        with self._lock:
            models = self._seen.setdefault(session_id, {})
            models.pop(completion.model, None)
            models[completion.model] = seen  # the newest last
            self._seen.move_to_end(session_id)
            while len(self._seen) > self._remembered:
                self._seen.popitem(last=False)

    def _current(self, session_id: str | None) -> dict[str, _Seen]:
        """Return what each model saw of a session that is not new, the one that it is on last."""
        if session_id is None:
            return {}
        oldest = self._clock() - self._idle_s
        with self._lock:
            return {name: seen for name, seen in self._seen.get(session_id, {}).items() if seen.at >= oldest}
