"""What a certificate is made for: the predictor, its encoder, and the models with their prices."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import astuple

import numpy as np

from eccos_core.domain import BoolArray, FloatArray, IntArray, Model
from eccos_core.protocols import Encoder, Predictor


def fingerprint(models: Sequence[Model], encoder: Encoder, predictor: Predictor) -> str:
    """Return 32 hexadecimal digits that change with anything that changes which model the certified rule takes.

    Raises `InputError` for a predictor that changes while it serves.
    """
    from eccos_core.predictors import digest_predictor

    prices = [
        (
            model.name,
            model.usd_per_input_token,
            model.usd_per_output_token,
            model.usd_per_cached_input_token,
            model.usd_per_reasoning_token,
            # the digest of a model without it stays what it was
            *([] if model.context_price is None else [astuple(model.context_price)]),
        )
        for model in models
    ]
    about = json.dumps([digest_predictor(predictor), encoder.name, prices])
    return hashlib.sha256(about.encode()).hexdigest()[:32]


def choose_by_price(quality: FloatArray, cost_usd: FloatArray, usd_per_quality: float) -> IntArray:
    """Return (R,) the model with the least cost_usd - usd_per_quality * quality, both (R, M). Ties go to the first."""
    return np.asarray(np.argmin(cost_usd - usd_per_quality * quality, axis=1), dtype=np.int64)


def follows_rule(quality: FloatArray, cost_usd: FloatArray, chosen: IntArray, usd_per_quality: float) -> BoolArray:
    """(R,) whether the chosen models (R,) are those of the certified rule over the whole pool."""
    return np.asarray(choose_by_price(quality, cost_usd, usd_per_quality) == chosen)
