"""Money: what is spent, what calls in flight may cost at most, and a budget that is never passed."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping
from typing import Any

from eccos_core.domain import Model, Request
from eccos_core.errors import InputError

TOKENS_OF_A_TEMPLATE = 64  # what a chat template adds around a conversation, at most
TOKENS_OF_A_MESSAGE = 16  # ... and around each message


class BudgetGuard:
    """Holds back the highest price of every call in flight, so that spent, at risk and held stay within the budget.

    All amounts in USD. `at_risk` is what calls may have cost whose bill never arrived. Without a budget it only counts.
    """

    def __init__(self, budget_usd: float | None = None, spent: float = 0.0, at_risk: float = 0.0) -> None:
        if budget_usd is not None and not (math.isfinite(budget_usd) and budget_usd >= 0):
            raise InputError(f"the budget is {budget_usd} USD, must be a number >= 0")
        self.budget = budget_usd
        self.spent = spent
        self.at_risk = at_risk
        self.exhausted = False
        self._held = 0.0
        self._in_flight = 0
        self._change = asyncio.Condition()

    async def reserve(self, *prices: float) -> bool:
        """Holds back the prices of calls, all or none, waiting for calls in flight where they do not fit beside them.

        False when they do not fit although nothing is in flight: then nothing more is affordable, for anybody. Every
        price that was held back has to be settled.
        """
        if not prices:
            return True
        usd = sum(prices)
        async with self._change:
            while not self.exhausted and not self._fits(usd):
                if self._in_flight == 0:
                    self.exhausted = True
                    self._change.notify_all()
                    break
                await self._change.wait()
            if self.exhausted:
                return False
            self._held += usd
            self._in_flight += len(prices)
            return True

    async def settle(self, reserved: float, *, spent: float = 0.0, at_risk: float = 0.0) -> None:
        """Gives the reservation of one call back, and books what it cost or may have cost."""
        self.spent += spent
        self.at_risk += at_risk
        self._in_flight -= 1
        self._held = self._held - reserved if self._in_flight else 0.0
        async with self._change:
            self._change.notify_all()

    def _fits(self, usd: float) -> bool:
        return self.budget is None or self.spent + self.at_risk + self._held + usd <= self.budget


def most_expensive_usd(model: Model, request: Request) -> float:
    """The most that one call can cost, in USD.

    Input: no tokenizer makes more tokens than there are bytes. Output: `max_tokens`, else the model's own limit, else
    its context window. Raises `InputError` where none of them is known.
    """
    input_tokens = most_input_tokens(model, request)
    output_tokens = most_output_tokens(model, request.parameters)
    if output_tokens is None:
        raise InputError(
            f"model {model.name!r}: a budget needs to know how long an answer can be; give --max-tokens, or "
            "model_info.max_output_tokens in the configuration"
        )
    per_output = max(model.usd_per_output_token, model.usd_per_reasoning_token or 0.0)
    return input_tokens * model.usd_per_input_token + output_tokens * per_output


def most_input_tokens(model: Model, request: Request) -> int:
    """No fewer tokens than any tokenizer makes of a request. Raises `InputError` where pictures make it unknowable."""
    if any(_has_more_than_text(message) for message in request.messages):
        if model.context_window is None:
            raise InputError(
                f"question {request.id!r}: a budget needs to know how many tokens its pictures or files can be for "
                f"{model.name!r}; give model_info.max_input_tokens in the configuration"
            )
        return model.context_window
    sent = [json.dumps(message, ensure_ascii=False, default=str) for message in request.messages]
    sent.append(json.dumps(request.parameters.get("tools") or "", ensure_ascii=False, default=str))
    size = sum(len(text.encode("utf-8", "replace")) + TOKENS_OF_A_MESSAGE for text in sent) + TOKENS_OF_A_TEMPLATE
    return min(size, model.context_window) if model.context_window else size


def most_output_tokens(model: Model, parameters: Mapping[str, Any]) -> int | None:
    """How many tokens an answer can have at most; None where nobody says."""
    asked = parameters.get("max_completion_tokens") or parameters.get("max_tokens")
    limits = [limit for limit in (asked, model.max_output_tokens or model.context_window) if limit]
    return min(limits) if limits else None


def _has_more_than_text(message: Mapping[str, Any]) -> bool:
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    return any(not isinstance(part, Mapping) or part.get("type") not in ("text", "input_text") for part in parts)
