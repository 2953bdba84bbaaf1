"""LiteLLM's plugin slots: narrow a group to one model's deployments, and choose a tier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eccos_core.domain import Decision
from eccos_core.errors import EccosError, InputError
from eccos_core.router import Router
from eccos_integrations.litellm.bridge import ONCE, OPEN_CALLS, Bridge
from eccos_integrations.litellm.outcomes import install_recorder
from eccos_integrations.litellm.requests import PassThrough, find_tenant, read_asked


class EccosRoutingPlugin:
    """Narrows a model group of LiteLLM to the deployments of the model that eccos chooses (a `RoutingPlugin`).

        litellm.Router(model_list=..., plugins=[EccosRoutingPlugin(router)])

    LiteLLM balances among those that are left. Where a call fails, the next one goes to the next best model. Its
    plugins see asynchronous calls only, and no call parameters: use `EccosRoutingStrategy` for tools and images.
    `models` adds names that eccos cannot know: a `litellm_params.model`, and the model of the pool that it is.
    """

    def __init__(self, router: Router, *, models: Mapping[str, str] | None = None) -> None:
        self.router = router
        self._bridge = Bridge(router, models)
        install_recorder()

    def __deepcopy__(self, memo: dict[int, Any]) -> EccosRoutingPlugin:
        """Return itself. LiteLLM copies its configuration, and a router holds locks and connections."""
        return self

    async def run(self, context: Any) -> Any:
        """Narrow `context.candidate_models`. A rule that allows no model leaves none, and LiteLLM refuses the call."""
        reached = self._bridge.names.reached_by(context.candidate_models)
        if len(reached) < 2:
            return context  # nothing of ours to choose from
        found = OPEN_CALLS.find(context.metadata)
        if found is not None and found.call.next_model in reached:  # a retry, or decided before
            return _narrow(context, reached[found.call.next_model], found.call.decision)
        tenants = self.router.parts.tenants
        try:
            asked = read_asked(context.structured_messages, {}, context.metadata, tenants)
            call = await self._bridge.abegin(asked, reached)
        except PassThrough as reason:
            ONCE.warn(f"a request passes through unchanged: {reason}")
            allowed = self._bridge.permitted(find_tenant(tenants, context.metadata), reached)
            if len(allowed) < len(reached):
                context.candidate_models = [name for each in allowed for name in reached[each]]
            return context
        except EccosError as error:
            ONCE.warn(f"a request is refused, because no model may answer it ({type(error).__name__})")
            context.signals["eccos"] = {"refused": type(error).__name__}
            context.candidate_models = []
            return context
        return _narrow(context, reached[call.decision.model], call.decision)


class EccosClassifier:
    """Chooses the tier of LiteLLM's complexity router (a `ClassifierPlugin`).

        complexity_router_config: {classifier_type: custom, classifier_plugin: my_module.classifier, tiers: ...}

    `tiers` are those of the configuration: a tier, and the model or models of the pool that it holds. eccos decides
    among them all, and the tier of the chosen one is given. No outcome comes back: LiteLLM does not say which call
    followed from which tier. So a tier cannot carry the parameters of an effort either. Raises `InputError` for a tier
    without a model of the pool, and for one whose model has efforts.
    """

    def __init__(self, router: Router, tiers: Mapping[str, str | Sequence[str]]) -> None:
        self.router = router
        self._bridge = Bridge(router)
        self._tier_of: dict[str, str] = {}
        for tier, given in tiers.items():
            found = [name for each in ([given] if isinstance(given, str) else given) for name in self._find(each)]
            if not found:
                names = ", ".join(model.name for model in router.models)
                raise InputError(f"tiers[{tier!r}] names no model of the pool. There are: {names}")
            if at_effort := [name for name in found if self._bridge.names.effort(name)]:
                raise InputError(
                    f"tiers[{tier!r}] names {given!r}, which has efforts ({', '.join(at_effort)}), and a tier carries "
                    "no call parameters. Leave model_info.efforts out for this model, or let EccosRoutingStrategy, "
                    "EccosRoutingPlugin or the proxy's hook decide."
                )
            for name in found:
                self._tier_of.setdefault(name, tier)

    async def classify(self, context: Any) -> str | None:
        """Return the tier of the chosen model. None where eccos does not decide: LiteLLM's own rule holds then."""
        try:
            asked = read_asked(context.structured_messages, {}, context.metadata, self.router.parts.tenants)
            decision = self.router.decide(asked.request(self._tier_of))
        except (PassThrough, EccosError) as reason:
            ONCE.warn(f"a request is not classified ({type(reason).__name__})")
            return None
        return self._tier_of[decision.model]

    def __deepcopy__(self, memo: dict[int, Any]) -> EccosClassifier:
        """Return itself. LiteLLM copies its configuration, and a router holds locks and connections."""
        return self

    def _find(self, name: str) -> tuple[str, ...]:
        names = self._bridge.names
        return names.of_group(name) or tuple(names.reached_by((name,)))


def _narrow(context: Any, names: Sequence[str], decision: Decision) -> Any:
    """Keep these names of LiteLLM, and sign the context with the decision."""
    context.candidate_models = [name for name in context.candidate_models if name in names]
    context.signals["eccos"] = {
        "decision_id": decision.id,
        "model": decision.model,
        "reason": decision.reason,
        "predicted_quality": decision.quality,
        "predicted_cost_usd": decision.cost_usd,
    }
    return context
