"""Rules per tenant: what a request may use at most, and under which policy it is decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from eccos_core.config import TenantConfig
from eccos_core.domain import Policy, Request
from eccos_core.errors import RequestError, did_you_mean


class Tenants:
    """The tenants of a configuration. A tenant's rules narrow what a request asks for. They never widen it."""

    def __init__(self, rules: Mapping[str, TenantConfig]) -> None:
        self._rules = dict(rules)

    def narrow(self, request: Request) -> Request:
        """Return the request under its tenant's rules.

        Raises `RequestError` for a tenant that the configuration does not have (when it has any), and when the
        request's allow list and the tenant's have no model in common.
        """
        rules = self._rules_of(request)
        if rules is None:
            return request
        allow = request.allow
        if rules.allow is not None:
            allow = rules.allow if allow is None else allow & rules.allow
            if not allow:
                raise RequestError(
                    f"request {request.id!r} allows {', '.join(sorted(request.allow or ()))}, its tenant "
                    f"{rules.name!r} only {', '.join(sorted(rules.allow))}: no model is left"
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
