"""A routing strategy for `litellm.Router`: eccos picks the deployment of every call, synchronous ones too."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from litellm.router_api import RoutingContext
from litellm.types.router import CustomRoutingStrategyBase

from eccos_core.errors import EccosError
from eccos_core.router import Router
from eccos_core.routing.outside_call import OutsideCall
from eccos_integrations.litellm.bridge import ONCE, OPEN_CALLS, Bridge
from eccos_integrations.litellm.call_effort import with_effort
from eccos_integrations.litellm.outcomes import install_recorder
from eccos_integrations.litellm.refusals import as_litellm_error
from eccos_integrations.litellm.requests import (
    CHOICE,
    DECISION_KEY,
    Asked,
    PassThrough,
    find_tenant,
    metadata_of,
    policy_in,
    read_asked,
)

_Records = Sequence[Mapping[str, Any]]
_SHARES = ("weight", "rpm", "tpm")  # LiteLLM's own order


class EccosRoutingStrategy(CustomRoutingStrategyBase):  # type: ignore[misc] # LiteLLM is not typed here
    """Picks deployments of a `litellm.Router` by the decisions of a router of eccos.

        router = litellm.Router(model_list=[...])
        router.register_plugin(EccosRoutingStrategy(eccos_router, router))
        router.completion(model="eccos", messages=[...])

    The model `eccos` stands for all deployments that are models of the pool, and `eccos:NAME` for them under a policy.
    In a model group of yours that holds several models of the pool, eccos decides too. In other groups a deployment is
    drawn by its weight, as LiteLLM does. Deployments in cooldown are left out. Where LiteLLM retries a call, it goes to
    the next best model. LiteLLM retries in a model group of yours, and not under the name `eccos`, which has none.
    `models` adds names that eccos cannot know: a `litellm_params.model`, and the model of the pool that it is.
    """

    def __init__(self, router: Router, litellm_router: Any, *, models: Mapping[str, str] | None = None) -> None:
        self.router = router
        self._litellm_router = litellm_router
        self._bridge = Bridge(router, models)
        install_recorder()

    async def async_get_available_deployment(
        self,
        model: str,
        messages: Any = None,
        input: Any = None,  # noqa: A002 - LiteLLM's name
        specific_deployment: bool | None = False,
        request_kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """See `CustomRoutingStrategyBase`. Raises LiteLLM's error where no deployment may answer."""
        kwargs = request_kwargs if request_kwargs is not None else {}
        policy = self._policy_of(model)
        groups = [model] if policy is None else self._pool_groups()
        records = [record for group in groups for record in await self._ahealthy(group, kwargs, messages)]
        pick = _Pick(self._bridge, model, messages, kwargs, records, policy)
        if not pick.is_open:
            return pick.draw(records) if records else await self._raise_none_available(model, kwargs, messages)
        try:
            call = await self._bridge.abegin(pick.asked, pick.models)
        except (PassThrough, EccosError) as reason:
            return pick.settle(reason)
        return pick.take(call)

    def get_available_deployment(
        self,
        model: str,
        messages: Any = None,
        input: Any = None,  # noqa: A002 - LiteLLM's name
        specific_deployment: bool | None = False,
        request_kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """The synchronous twin of `async_get_available_deployment`."""
        kwargs = request_kwargs if request_kwargs is not None else {}
        policy = self._policy_of(model)
        groups = [model] if policy is None else self._pool_groups()
        records = [record for group in groups for record in self._healthy(group)]
        pick = _Pick(self._bridge, model, messages, kwargs, records, policy)
        if not pick.is_open:
            if not records:
                raise as_litellm_error(f"no deployment of {model!r} is available", model, 429)
            return pick.draw_synchronously(records)
        try:
            call = self._bridge.begin(pick.asked, pick.models)
        except (PassThrough, EccosError) as reason:
            return pick.settle(reason)
        return pick.take_synchronously(call)

    def _policy_of(self, model: str) -> str | None:
        """Return the policy that a virtual name asks for. None for a model group of LiteLLM."""
        return None if self._records(model) else policy_in(model)

    def _records(self, group: str | None = None) -> _Records:
        """Return the deployments of a group of LiteLLM, or all of them."""
        registry = getattr(self._litellm_router, "registry", None)
        if registry is None:  # an older LiteLLM
            return list(self._litellm_router.get_model_list(model_name=group) or ())
        return list(registry().deployments(group) or ())

    def _pool_groups(self) -> list[str]:
        """Return the model groups of LiteLLM that hold models of the pool."""
        records = self._records()
        return list(dict.fromkeys(each["model_name"] for each in records if self._bridge.names.of_record(each)))

    async def _ahealthy(self, group: str, kwargs: dict[str, Any], messages: Any) -> _Records:
        """Return the deployments of a group that may be called now."""
        context = RoutingContext(self._litellm_router)
        try:
            found: Any = await context.select(group, dict(kwargs), kind="healthy", messages=messages)
        except Exception as error:  # noqa: BLE001 - LiteLLM has several errors for a group without a deployment
            ONCE.warn(f"LiteLLM offers no deployment of {group!r} ({type(error).__name__})")
            return []
        return [found] if isinstance(found, Mapping) else list(found)

    def _healthy(self, group: str) -> _Records:
        records = self._records(group)
        ids = [record["model_info"]["id"] for record in records]
        cooling = self._litellm_router.health().cooldowns.get_active_cooldowns(model_ids=ids, parent_otel_span=None)
        unwell = {each[0] for each in cooling}
        return [record for record in records if record["model_info"]["id"] not in unwell]

    async def _raise_none_available(self, model: str, kwargs: dict[str, Any], messages: Any) -> Any:
        """Let LiteLLM say, with its own error, why it has no deployment of a group."""
        context = RoutingContext(self._litellm_router)
        await context.select(model, dict(kwargs), kind="healthy", messages=messages)
        raise as_litellm_error(f"no deployment of {model!r} is available", model, 429)


class _Pick:
    """One pick of a deployment, among the records that may be called now."""

    def __init__(
        self, bridge: Bridge, model: str, messages: Any, kwargs: dict[str, Any], records: _Records, policy: str | None
    ) -> None:
        self._bridge, self._model, self._kwargs = bridge, model, kwargs
        self._metadata = metadata_of(kwargs)
        self._found = OPEN_CALLS.find(self._metadata)
        self._records: dict[str, list[Mapping[str, Any]]] = {}
        for record in records:
            for name in bridge.names.of_record(record):
                self._records.setdefault(name, []).append(record)
        self._others = [record for record in records if not bridge.names.of_record(record)]
        self._reason: PassThrough | EccosError | None = None
        self.asked = Asked(())
        try:
            tenants = bridge.router.parts.tenants
            self.asked = read_asked(messages, kwargs, self._metadata, tenants, policy=policy or "")
        except (PassThrough, EccosError) as reason:
            self._reason = reason

    @property
    def models(self) -> tuple[str, ...]:
        """The models of the pool to choose from."""
        return tuple(self._records)

    @property
    def is_open(self) -> bool:
        """Whether there is something to decide: several models of the pool, and no decision yet."""
        return len(self._records) > 1 and self._reason is None and self._found is None

    def draw(self, records: _Records) -> Mapping[str, Any]:
        """Draw one: of the model to call next where it was decided before, else among those that the tenant may use."""
        if self._found is not None:
            name = self._found.call.next_model
            return _draw(self._records.get(name) or records)
        return self.settle(self._reason) if self._reason is not None else _draw(records)

    def settle(self, reason: PassThrough | EccosError) -> Mapping[str, Any]:
        """Let a request pass, as far as its tenant's rules allow. Raises LiteLLM's error for one that is refused."""
        if isinstance(reason, EccosError):
            raise as_litellm_error(reason, self._model)
        ONCE.warn(f"a request for {self._model!r} passes through unchanged: {reason}")
        tenant = find_tenant(self._bridge.router.parts.tenants, self._metadata)
        allowed = self._bridge.permitted(tenant, self._records)
        kept = [record for name in allowed for record in self._records[name]]
        if not kept and not self._others:
            raise as_litellm_error(f"no deployment of {self._model!r} may answer this request", self._model, 400)
        return _draw([*kept, *self._others])

    def take(self, call: OutsideCall) -> Mapping[str, Any]:
        """Return a deployment of the decision's model, and sign the request with the decision."""
        metadata = self._kwargs.setdefault("metadata", {}) if not self._metadata else self._metadata
        if isinstance(metadata, dict):
            metadata[DECISION_KEY] = call.decision.id
        return _draw(self._records[call.decision.model])

    def take_synchronously(self, call: OutsideCall) -> Mapping[str, Any]:
        """The same for a synchronous call, whose arguments no callback sees before it is made."""
        self._add_effort(call.decision.model)
        return self.take(call)

    def draw_synchronously(self, records: _Records) -> Mapping[str, Any]:
        """Draw one for a synchronous call, whose arguments no callback sees before it is made."""
        if self._found is not None:
            self._add_effort(self._found.call.next_model)
        return self.draw(records)

    def _add_effort(self, name: str) -> None:
        effort = self._bridge.names.effort(name) if name in self._records else {}
        if effort:  # of this attempt only: LiteLLM gives each attempt its own arguments
            self._kwargs.update(with_effort(self._kwargs, effort, "responses" if "input" in self._kwargs else "chat"))


def _draw(records: _Records) -> Mapping[str, Any]:
    """Draw a deployment by weight, or else by its requests or tokens per minute, or else evenly."""
    for share in _SHARES:
        weights = [float((record.get("litellm_params") or {}).get(share) or 0.0) for record in records]
        if any(weights):
            return random.choices(records, weights)[0]  # noqa: S311 - no secret
    return random.choice(records)  # noqa: S311 - no secret


__all__ = ["CHOICE", "EccosRoutingStrategy"]
