"""What each request of a call has to pay: shares whose sums are the call's tokens and cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from eccos_core.domain import Completion, Model


def share_call(
    call: Completion, model: Model, input_tokens: Sequence[float], output_tokens: Sequence[float], name: str
) -> list[Completion]:
    """Share a call among its k requests, and return one completion for each, without text, under the name of its arm.

    `input_tokens` (k,) are those of each request alone, `output_tokens` (k,) those of each answer. The rest of the
    call (instructions, markers) is shared evenly. Token counts and cost add up to those of the call.
    """
    into = _split(call.input_tokens, _with_rest(input_tokens, call.input_tokens))
    out = _split(call.output_tokens, _with_rest(output_tokens, call.output_tokens))
    cached = _split(call.cached_input_tokens, into)
    reasoning = _split(call.reasoning_tokens, out)
    value = [float(model.call_usd(taken, given)) for taken, given in zip(into, out, strict=True)]
    whole = sum(value)
    paid = [call.cost_usd * (each / whole if whole > 0 else 1 / len(value)) for each in value]
    return [
        replace(
            call,
            text="",
            model=name,
            message={},
            input_tokens=into[row],
            output_tokens=out[row],
            cached_input_tokens=cached[row],
            reasoning_tokens=reasoning[row],
            cost_usd=paid[row],
        )
        for row in range(len(value))
    ]


def add_spent(completion: Completion, spent: Completion | None) -> Completion:
    """Return an answer that also bears what a call before it cost: `spent`, a share of that call."""
    if spent is None:
        return completion
    return replace(
        completion,
        input_tokens=completion.input_tokens + spent.input_tokens,
        output_tokens=completion.output_tokens + spent.output_tokens,
        cached_input_tokens=completion.cached_input_tokens + spent.cached_input_tokens,
        reasoning_tokens=completion.reasoning_tokens + spent.reasoning_tokens,
        cost_usd=completion.cost_usd + spent.cost_usd,
    )


def _with_rest(own: Sequence[float], total: int) -> list[float]:
    """Return weights: each one's own tokens, and an equal part of those that belong to nobody."""
    rest = max(0.0, total - sum(own)) / len(own)
    return [each + rest for each in own]


def _split(total: int, weights: Sequence[float]) -> list[int]:
    """Share whole tokens by weight. The largest remainders get what rounding down leaves (Hamilton's method)."""
    whole = sum(weights)
    exact = [total * (each / whole if whole > 0 else 1 / len(weights)) for each in weights]
    shares = [int(each) for each in exact]
    order = sorted(range(len(exact)), key=lambda row: shares[row] - exact[row])
    for row in order[: total - sum(shares)]:
        shares[row] += 1
    return shares
