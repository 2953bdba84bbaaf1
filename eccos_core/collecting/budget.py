"""Keep a collection within its budget: count what is spent and reserve what calls in flight may cost."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping
from typing import Any

from eccos_core.domain import Model, Request
from eccos_core.errors import InputError

TEMPLATE_TOKENS = 64  # the most that a chat template adds around a conversation
MESSAGE_TOKENS = 16  # the most that it adds around each message


class BudgetGuard:
    """Reserve the highest price of every call in flight, so that the budget is never exceeded.

    All amounts are in USD. spent + at_risk + reserved stays within the budget. `at_risk` is the most that calls without
    a bill may have cost. Without a budget the guard only counts.
    """

    def __init__(self, budget_usd: float | None = None, spent: float = 0.0, at_risk: float = 0.0) -> None:
        if budget_usd is not None and not (math.isfinite(budget_usd) and budget_usd >= 0):
            raise InputError(f"the budget is {budget_usd} USD, it must be a number >= 0")
        self.budget = budget_usd
        self.spent = spent
        self.at_risk = at_risk
        self.exhausted = False
        self._held = 0.0
        self._in_flight = 0
        self._change = asyncio.Condition()

    async def reserve(self, *prices: float) -> bool:
        """Reserve the prices of several calls, all or none. Waits for calls in flight if the budget is short.

        Returns False when the prices do not fit and no call is in flight. Then the budget is exhausted for all later
        calls too. Call `settle` for every price that was reserved.
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
        """Release the reservation of one call and record what it cost or may have cost."""
        self.spent += spent
        self.at_risk += at_risk
        self._in_flight -= 1
        self._held = self._held - reserved if self._in_flight else 0.0
        async with self._change:
            self._change.notify_all()

    def _fits(self, usd: float) -> bool:
        return self.budget is None or self.spent + self.at_risk + self._held + usd <= self.budget


def max_call_usd(model: Model, request: Request) -> float:
    """Return the most that one call can cost, in USD.

    Input: a text has at most one token per byte. Output: `max_tokens`, else the model's own limit, else its context
    window. Raises `InputError` if none of them is known.
    """
    input_tokens = max_input_tokens(model, request)
    output_tokens = max_answer_tokens(model, request.parameters)
    if output_tokens is None:
        raise InputError(
            f"model {model.name!r}: a budget needs the longest possible answer. You can give --max-tokens, or set "
            "model_info.max_output_tokens in the configuration."
        )
    if model.context_price is not None:
        return float(model.call_usd(input_tokens, output_tokens))
    per_output = max(model.usd_per_output_token, model.usd_per_reasoning_token or 0.0)
    return input_tokens * model.usd_per_input_token + output_tokens * per_output


def max_input_tokens(model: Model, request: Request) -> int:
    """Return an upper bound on the input tokens of a request, for any tokenizer.

    Raises `InputError` for pictures or files if the model's context window is unknown.
    """
    if any(_has_more_than_text(message) for message in request.messages):
        if model.context_window is None:
            raise InputError(
                f"question {request.id!r}: a budget needs the most tokens that its pictures or files can have for "
                f"{model.name!r}. Set model_info.max_input_tokens in the configuration."
            )
        return model.context_window
    sent = [json.dumps(message, ensure_ascii=False, default=str) for message in request.messages]
    sent.append(json.dumps(request.parameters.get("tools") or "", ensure_ascii=False, default=str))
    size = sum(len(text.encode("utf-8", "replace")) + MESSAGE_TOKENS for text in sent) + TEMPLATE_TOKENS
    return min(size, model.context_window) if model.context_window else size


def max_answer_tokens(model: Model, parameters: Mapping[str, Any]) -> int | None:
    """Return the most tokens that an answer can have, None if unknown."""
    requested = parameters.get("max_completion_tokens") or parameters.get("max_tokens")
    limits = [limit for limit in (requested, model.max_output_tokens or model.context_window) if limit]
    return min(limits) if limits else None


def _has_more_than_text(message: Mapping[str, Any]) -> bool:
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    return any(not isinstance(part, Mapping) or part.get("type") not in ("text", "input_text") for part in parts)
