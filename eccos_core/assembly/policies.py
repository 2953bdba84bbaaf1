"""Builds the rules that a configuration decides by: its policies, and what steers the single requests of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from eccos_core.assembly.predictor import build_floor_map, build_steering
from eccos_core.config import CertifiedPolicy
from eccos_core.domain import GroupShare, QualityPrice
from eccos_core.routing.named_policies import NamedPolicy, built_in_policies

if TYPE_CHECKING:
    from eccos_core.assembly.assembled import Assembled
    from eccos_core.assembly.forecaster import Forecaster
    from eccos_core.certification import Certificate
    from eccos_core.config import Config
    from eccos_core.domain import Policy
    from eccos_core.protocols import Encoder, Predictor, Steering
    from eccos_core.routing.floor_map import FloorMap
    from eccos_core.routing.tenants import Tenants


@dataclass(frozen=True, slots=True, eq=False)
class DecisionRules:
    """The policies of a pool. Each has what steers its single requests. The fields are those of `Parts`."""

    policy: Policy
    certificate: Certificate | None
    floor_map: FloorMap
    steering: Steering
    tenant_steering: Mapping[str, Steering]
    policies: Mapping[str, NamedPolicy]


def build_decision_rules(config: Config, forecaster: Forecaster, current: Assembled | None) -> DecisionRules:
    """Build the policies of a configuration. A stream whose target stays goes on with its account.

    Raises `CertificateError`, and `InputError` for a target that no price reaches.
    """
    policy, certificate = read_policy(config, forecaster.encoder, forecaster.predictor)
    floor_map = build_floor_map(config, forecaster.training)

    def steer(policy: Policy) -> Steering:
        return build_steering(config, floor_map.apply(policy), forecaster.training)

    own = {name: tenant.policy for name, tenant in config.tenants.items() if tenant.policy is not None}
    rules = DecisionRules(
        policy,
        certificate,
        floor_map,
        steering=steer(policy),
        tenant_steering={name: steer(policy) for name, policy in own.items()},
        policies={
            **built_in_policies(),
            **{name: NamedPolicy(policy, steer(policy)) for name, policy in config.policies.items()},
        },
    )
    if current is not None:
        _continue_accounts(rules, current)
    return rules


def read_policy(config: Config, encoder: Encoder, predictor: Predictor) -> tuple[Policy, Certificate | None]:
    """Return the policy of the configuration, and the certificate of a certified one.

    A certified policy is the fixed price that its certificate names. Raises `CertificateError` for a certificate that
    is missing, void or for another claim.
    """
    from eccos_core.certification import read_certificate
    from eccos_core.routing.certified import fingerprint

    asked = config.policy
    if not isinstance(asked, CertifiedPolicy):
        return asked, None
    certificate = read_certificate(asked.certificate)
    found = fingerprint(config.models, encoder, predictor)
    usd_per_quality = certificate.require(asked.claim, found, asked.certificate)
    return QualityPrice(usd_per_quality / 100), certificate


def build_groups(config: Config) -> tuple[GroupShare, ...]:
    """Build the shares of a batch that `eccos.groups` gives to some models."""
    return tuple(
        GroupShare(
            group.name,
            np.array([model.is_named_in(group.models) or bool(model.tags & group.tags) for model in config.models]),
            group.at_least,
            group.at_most,
        )
        for group in config.groups
    )


def build_tenants(config: Config) -> Tenants:
    """Build the rules per tenant, and the other names of models."""
    from eccos_core.routing.tenants import Tenants

    efforts = {model.name: model.effort_of for model in config.models if model.effort_of}
    return Tenants(config.tenants, config.aliases, efforts)


def _continue_accounts(rules: DecisionRules, current: Assembled) -> None:
    """Go on with the accounts of the streams whose target stays."""
    from eccos_core.streaming import StreamController

    before = current.parts
    old_policies = {name: named.steering for name, named in before.policies.items()}
    pairs = [
        (rules.steering, before.steering),
        *((steering, before.tenant_steering.get(name)) for name, steering in rules.tenant_steering.items()),
        *((named.steering, old_policies.get(name)) for name, named in rules.policies.items()),
    ]
    for new, old in pairs:
        if isinstance(new, StreamController) and isinstance(old, StreamController) and new.target == old.target:
            new.take_over(old)
