"""Token counts of a call: what the provider reported, or an estimate from the text where that cannot be."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eccos_core.domain import Model, Request
from eccos_core.io.tokens import count_text_tokens, count_tokens

_log = logging.getLogger("eccos.usage")
MOST_TOKENS = 10_000_000  # of a model without a context window. No model reads or writes more


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call. Cached ones are part of the input, reasoning ones of the output.

    `estimated` says that the provider reported no counts, or counts that cannot be.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False

    @classmethod
    def of(cls, reported: Any, model: Model, request: Request, message: Mapping[str, Any]) -> Usage:
        """Read LiteLLM's `Usage`, or None.

        A prompt has at least one token, and so has an answer that says something. Counts beyond twice the model's
        context window are nonsense. What is missing or nonsense is counted in the text of request and `message`.
        """
        most = MOST_TOKENS if model.context_window is None else 2 * model.context_window
        written = _written(message)
        said_input, said_output = getattr(reported, "prompt_tokens", None), getattr(reported, "completion_tokens", None)
        input_tokens = _plausible(said_input, 1, most)
        output_tokens = _plausible(said_output, 1 if written else 0, most)
        estimated = input_tokens is None or output_tokens is None
        if (said_input and input_tokens is None) or (said_output and output_tokens is None):
            _log.warning(
                "%s: the provider reported %r input and %r output tokens, which cannot be. They are estimated from "
                "the text", model.name, said_input, said_output,
            )  # fmt: skip
        if input_tokens is None:
            input_tokens = count_tokens(request.messages, request.parameters.get("tools"))
        if output_tokens is None:
            output_tokens = count_text_tokens(written)
        cached = getattr(getattr(reported, "prompt_tokens_details", None), "cached_tokens", None)
        reasoning = getattr(getattr(reported, "completion_tokens_details", None), "reasoning_tokens", None)
        return cls(
            input_tokens,
            output_tokens,
            _plausible(cached, 0, input_tokens) or 0,
            _plausible(reasoning, 0, output_tokens) or 0,
            estimated,
        )


def _plausible(tokens: Any, least: int, most: int) -> int | None:
    return tokens if isinstance(tokens, int) and least <= tokens <= most else None


def _written(message: Mapping[str, Any]) -> str:
    """All that a model wrote: text, reasoning and tool calls."""
    texts = [message.get(name) for name in ("reasoning_content", "content")]
    calls = message.get("tool_calls")
    return "".join(
        (*(text for text in texts if isinstance(text, str)), json.dumps(calls, default=str) if calls else "")
    )
