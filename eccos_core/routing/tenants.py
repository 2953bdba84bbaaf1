"""Rules per tenant: what a request may use at most, and under which policy it is decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from eccos_core.config import TenantConfig
from eccos_core.domain import Policy, Request
from eccos_core.errors import RequestError, did_you_mean


class Tenants:
    """The tenants of a configuration. A tenant's rules narrow what a request asks for. They never widen it.

    `aliases` maps other names of models, which requests may use, to their names in the pool. `efforts` maps the efforts
    of a model to its name, which stands for all of them in every list.
    """

    def __init__(
        self,
        rules: Mapping[str, TenantConfig],
        aliases: Mapping[str, str] | None = None,
        efforts: Mapping[str, str] | None = None,
    ) -> None:
        self._rules = dict(rules)
        self._aliases = dict(aliases or {})
        self._efforts = dict(efforts or {})

    @property
    def names(self) -> frozenset[str]:
        """The tenants that have rules."""
        return frozenset(self._rules)

    def narrow(self, request: Request) -> Request:
        """Return the request under its tenant's rules, with the pool's own names of models.

        Raises `RequestError` for a tenant that the configuration does not have (when it has any), and when the
        request's allow list and the tenant's have no model in common, and for a policy by name where the tenant has
        its own.
        """
        if self._aliases and (request.allow or request.deny):
            allowed = None if request.allow is None else self._pool_names(request.allow)
            request = replace(request, allow=allowed, deny=self._pool_names(request.deny))
        rules = self._rules_of(request)
        if rules is None:
            return request
        allow = request.allow
        if rules.allow is not None:
            allow = rules.allow if allow is None else self._in_both(allow, rules.allow)
            if not allow:
                raise RequestError(
                    f"request {request.id!r} allows {', '.join(sorted(request.allow or ()))}, its tenant "
                    f"{request.tenant!r} only {', '.join(sorted(rules.allow))}: no model is left"
                )
        if request.policy is not None and rules.policy is not None:
            raise RequestError(
                f"request {request.id!r} asks for the policy {request.policy!r}, and its tenant {request.tenant!r} has "
                "a policy of its own. Leave the policy out."
            )
        least = [each for each in (request.min_quality, rules.min_quality) if each is not None]
        return replace(
            request,
            allow=allow,
            deny=request.deny | rules.deny,
            required_tags=request.required_tags | rules.required_tags,
            min_quality=max(least) if least else None,
        )

    def policy_of(self, request: Request) -> Policy | None:
        """Return the tenant's own policy, or None where the rule for all holds."""
        rules = self._rules_of(request)
        return rules.policy if rules is not None else None

    def _pool_names(self, names: frozenset[str]) -> frozenset[str]:
        return frozenset(self._aliases.get(name, name) for name in names)

    def _in_both(self, asked: frozenset[str], allowed: frozenset[str]) -> frozenset[str]:
        """Return the names that stand for models of both lists."""
        names = {name for name in asked if self._efforts.get(name) in allowed}
        return (asked & allowed) | names | {name for name in allowed if self._efforts.get(name) in asked}

    def _rules_of(self, request: Request) -> TenantConfig | None:
        if request.tenant is None or not self._rules:
            return None
        rules = self._rules.get(request.tenant)
        if rules is None:
            raise RequestError(
                f"request {request.id!r}: unknown tenant {request.tenant!r}{did_you_mean(request.tenant, self._rules)} "
                "Tenants stand under eccos.tenants in the configuration."
            )
        return rules
