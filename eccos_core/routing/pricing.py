"""From forecast tokens to USD. A model without a price never gets here: the configuration refuses it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from eccos_core.domain import FloatArray, Model, Request

USUAL_OUTPUT_LIMIT = 4096  # tokens, of a model that names none


def cost_usd(
    models: Sequence[Model],
    input_tokens: FloatArray,
    output_tokens: FloatArray,
    cached_tokens: FloatArray | None = None,
) -> FloatArray:
    """What each call will cost: (R, M) USD.

    input_tokens (R,) or (R, M); output_tokens (R, M), reasoning included; cached_tokens, shaped like input_tokens,
    is the part of the input that the provider has cached, charged at the cached price where the model has one. A model
    with a `context_price` costs what its context costs.
    """
    input_price = np.array([model.usd_per_input_token for model in models])
    output_price = np.array([model.usd_per_output_token for model in models])
    cost = _per_model(input_tokens) * input_price + output_tokens * output_price
    for column, model in enumerate(models):
        if model.context_price is not None:
            taken = input_tokens if input_tokens.ndim == 1 else input_tokens[:, column]
            cost[:, column] = model.call_usd(taken, output_tokens[:, column])
    if cached_tokens is not None:
        discount = np.array(
            [
                model.usd_per_input_token - model.usd_per_cached_input_token
                if model.usd_per_cached_input_token is not None
                else 0.0
                for model in models
            ]
        )
        cost = cost - _per_model(cached_tokens) * discount
    return np.asarray(cost, dtype=np.float64)


def worst_usd(model: Model, request: Request, input_tokens: int) -> float:
    """Return the most that a call is likely to cost, in USD: all the output that it may have, or 4,096 tokens."""
    limit = min(_asked_limit(request.parameters), model.max_output_tokens or USUAL_OUTPUT_LIMIT)
    return float(model.call_usd(input_tokens, limit))


def _per_model(tokens: FloatArray) -> FloatArray:
    """(R,) -> (R, 1), so that it spreads over models; (R, M) stays."""
    return tokens[:, None] if tokens.ndim == 1 else tokens


def output_limit(models: Sequence[Model], parameters: Sequence[Mapping[str, object]]) -> FloatArray:
    """Most output tokens that each answer can have: (R, M), from the request's max_tokens and the model's own limit."""
    asked = np.array([_asked_limit(each) for each in parameters])
    allowed = np.array([model.max_output_tokens or np.inf for model in models])
    return np.asarray(np.minimum(asked[:, None], allowed[None, :]), dtype=np.float64)


def _asked_limit(parameters: Mapping[str, object]) -> float:
    for name in ("max_completion_tokens", "max_tokens"):
        value = parameters.get(name)
        if isinstance(value, int) and value > 0:
            return float(value)
    return float("inf")
