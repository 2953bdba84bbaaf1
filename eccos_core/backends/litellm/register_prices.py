"""Telling LiteLLM the prices of models that it does not know, once.

LiteLLM looks a model up some ten times in every call. For a name that its price map lacks (a model of one's own behind
an OpenAI-compatible server) each look-up tries hundreds of patterns: 0.4 ms of processor time a call. What it is told
also gives LiteLLM's own callbacks a cost to report; `litellm.Router` registers its deployments in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from eccos_core.domain import Model

SOURCE = "eccos"  # marks our entries, whose prices are never taken for LiteLLM's own


def register_prices(litellm: Any, priced: Iterable[tuple[str, Model]]) -> frozenset[str]:
    """Registers each (LiteLLM's name, model) that LiteLLM has no price for. Returns the names that stand there by us.

    Only names whose price LiteLLM looks up on this machine: some providers it asks over the network.
    """
    told: dict[str, dict[str, Any]] = {}
    for name, model in priced:
        if not _is_known(litellm, name):
            cached = model.usd_per_cached_input_token
            told[name] = {
                "input_cost_per_token": model.usd_per_input_token,
                "output_cost_per_token": model.usd_per_output_token,
                "cache_read_input_token_cost": model.usd_per_input_token if cached is None else cached,
                "litellm_provider": name.partition("/")[0],
                "mode": "chat",
                "source": SOURCE,
            }
    if told:
        litellm.register_model(told, persist_across_reloads=False)
    return frozenset(told)


def _is_known(litellm: Any, name: str) -> bool:
    """Whether LiteLLM knows the model by itself."""
    if litellm.model_cost.get(name, {}).get("source") == SOURCE:
        return False
    try:
        litellm.get_model_info(name)
    except Exception:  # noqa: BLE001 - LiteLLM raises a plain Exception for a model that it does not know
        return False
    return True
