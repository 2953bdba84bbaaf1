"""Policies that a request may choose by name: those of the configuration, and two that every router has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from eccos_core.domain import Policy, QualityPrice, Request
from eccos_core.errors import RequestError, did_you_mean
from eccos_core.protocols import Steering

MOST_USD_PER_QUALITY_POINT = 1e4
BUILT_IN: Mapping[str, QualityPrice] = {
    "cheap": QualityPrice(0.0, on_infeasible="best_effort"),
    "best": QualityPrice(MOST_USD_PER_QUALITY_POINT, on_infeasible="best_effort"),
}
"""`cheap`: the cheapest model that may answer. `best`: the one with the best forecast, whatever it costs."""


@dataclass(frozen=True, slots=True, eq=False)
class NamedPolicy:
    """A policy, and what decides the single requests that choose it."""

    policy: Policy
    steering: Steering


def built_in_policies() -> dict[str, NamedPolicy]:
    """Return the policies that every router has."""
    from eccos_core.streaming import FixedPrice

    return {name: NamedPolicy(policy, FixedPrice(policy.usd_per_quality)) for name, policy in BUILT_IN.items()}


def check_policy_name(request: Request, policies: Mapping[str, NamedPolicy]) -> Request:
    """Return the request. Raises `RequestError` for a policy that nobody named."""
    if request.policy is not None and request.policy not in policies:
        hint = did_you_mean(request.policy, policies) or "."
        known = ", ".join(policies)
        raise RequestError(
            f"request {request.id!r}: unknown policy {request.policy!r}{hint} There are: {known}. More of them stand "
            "under eccos.policies in the configuration."
        )
    return request
