"""Which model of the pool a deployment of LiteLLM is."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from eccos_core.backends import EffortBackend
from eccos_core.domain import Model
from eccos_core.protocols import Backend
from eccos_core.router import Router


class PoolNames:
    """Matches deployments of LiteLLM with models of the pool.

    A deployment is the model that its `model_info.eccos_model` names, or its `model_name`, or else the one whose
    `litellm_params.model` it has. `models` adds names: LiteLLM's name of a model, and the pool's.
    """

    def __init__(self, router: Router, models: Mapping[str, str] | None = None) -> None:
        self._router = router
        self._given = dict(models or {})

    def reached_by(self, litellm_models: Collection[str]) -> dict[str, tuple[str, ...]]:
        """Return the models of the pool that these names of LiteLLM reach, each with its names among them."""
        told = _litellm_models(self._router.backend)
        reached = {}
        for model in self._router.models:
            own = {model.name, model.deployment, *told.get(model.name, ())}
            own |= {name for name, pool_name in self._given.items() if model.is_named_in({pool_name})}
            if names := tuple(name for name in litellm_models if name in own):
                reached[model.name] = names
        return reached

    def of_group(self, name: str) -> tuple[str, ...]:
        """Return the models of the pool that a model group of LiteLLM holds, by its name: a model and its efforts."""
        known = self._given.get(name, name)
        return tuple(model.name for model in self._router.models if model.is_named_in({known}))

    def of_deployment(
        self, group: object, litellm_model: object, model_info: Mapping[str, Any] | None
    ) -> tuple[str, ...]:
        """Return the models of the pool that a deployment is: none, one, or one and its efforts."""
        for name in ((model_info or {}).get("eccos_model"), group):
            if isinstance(name, str) and (found := self.of_group(name)):
                return found
        return tuple(self.reached_by((litellm_model,))) if isinstance(litellm_model, str) else ()

    def of_record(self, deployment: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the models of the pool that an entry of LiteLLM's `model_list` is."""
        parameters = deployment.get("litellm_params") or {}
        return self.of_deployment(deployment.get("model_name"), parameters.get("model"), deployment.get("model_info"))

    def model(self, name: str) -> Model:
        """Return a model of the pool."""
        return next(model for model in self._router.models if model.name == name)

    def effort(self, name: str) -> Mapping[str, Any]:
        """Return the call parameters of a model that is an effort of another. They are empty for others."""
        found: dict[str, Any] = {}
        for backend in _layers(self._router.backend):
            if isinstance(backend, EffortBackend):
                found |= backend.efforts.get(name, {})
        return found


def _litellm_models(backend: Backend) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for each in _layers(backend):
        found |= getattr(each, "litellm_models", {})
    return found


def _layers(backend: Any) -> Iterator[Any]:
    """Yield a backend and those that it stands in front of."""
    waiting = [backend]
    while waiting:
        each = waiting.pop()
        yield each
        inner = getattr(each, "backend", None)
        waiting += [*({id(one): one for one in getattr(each, "backends", {}).values()}.values())]
        waiting += [inner] if inner is not None else []
