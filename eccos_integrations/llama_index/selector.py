"""`EccosSelector`: choose among query engines or retrievers by predicted quality and cost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_index.core.base.base_selector import BaseSelector, SelectorResult, SingleSelection
from llama_index.core.prompts.mixin import PromptDictType
from llama_index.core.schema import QueryBundle
from llama_index.core.tools.types import ToolMetadata

from eccos_core.domain import Decision, Request
from eccos_core.errors import Overloaded, did_you_mean
from eccos_core.router import Router
from eccos_core.routing.prepared import PreparedBatch
from eccos_integrations._shared.settings import build_router, require_config, resolve_router
from eccos_integrations.llama_index.errors import raise_llama_index_errors

DEFAULT_WAIT_S = 60.0


@dataclass
class ModelChoice(ToolMetadata):
    """The metadata of a choice that stands for a model, or a recorded pipeline, of the pool."""

    model: str = ""


class EccosSelection(SingleSelection):
    """One selected choice, with its predicted quality in [0, 1] and its predicted cost in USD."""

    model: str
    quality: float
    cost_usd: float
    decision_id: str


class EccosSelector(BaseSelector):
    """Select the cheapest choice that is good enough for the query, or several.

        engine = RouterQueryEngine(EccosSelector(router=llm.router, models={"summary": "large"}), tools)

    Every choice stands for a model of the pool, or for a pipeline that has an entry and recorded outcomes there.
    `models` says which: a mapping from the name or description of a choice to a model, or one model per choice, in
    order. Without it the metadata of a choice says it (`ModelChoice`), or its own name or description does.

    At most `max_outputs` choices are selected, the best first. The selector stops earlier when at least one of them is
    right with the chance `enough`, in [0, 1]. `min_quality` is the least predicted quality. `wait_s` is the longest
    wait for a free slot, in seconds. Raises `ValueError` without a router, and for numbers outside their range.
    """

    def __init__(
        self,
        *,
        config: str | Path | None = None,
        router: Router | None = None,
        models: Mapping[str, str] | Sequence[str] | None = None,
        max_outputs: int = 1,
        enough: float | None = None,
        min_quality: float | None = None,
        tenant: str | None = None,
        wait_s: float = DEFAULT_WAIT_S,
    ) -> None:
        if max_outputs < 1:
            raise ValueError(f"max_outputs is {max_outputs}, must be at least 1")
        if enough is not None and not 0 <= enough <= 1:
            raise ValueError(f"enough is {enough}, must be a chance in [0, 1]")
        self._config = config
        self.router = resolve_router(type(self).__name__, config, router)
        self._models = models
        self._max_outputs = max_outputs
        self._enough = enough
        self._min_quality = min_quality
        self._tenant = tenant
        self._wait_s = wait_s

    def __deepcopy__(self, memo: dict[int, Any]) -> EccosSelector:
        """Copy the settings, and share the router."""
        copied = type(self).__new__(type(self))
        vars(copied).update(vars(self))
        return copied

    def __getstate__(self) -> dict[str, Any]:
        """Leave the router out. It is built again from the configuration."""
        require_config(type(self).__name__, self._config)
        return {**vars(self), "router": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.router = build_router(state["_config"])

    def _get_prompts(self) -> PromptDictType:
        """Return no prompts, because no model is asked which choice to take."""
        return {}

    def _update_prompts(self, prompts: PromptDictType) -> None:
        """Update nothing, because there are no prompts."""

    def _select(self, choices: Sequence[ToolMetadata], query: QueryBundle) -> SelectorResult:
        bound = bind_choices(choices, self._models, [model.name for model in self.router.models])
        with raise_llama_index_errors():
            request = Request.of(
                query.query_str, allow=frozenset(bound), min_quality=self._min_quality, tenant=self._tenant
            )
            prepared, decision = self._decide(request)
        return SelectorResult(selections=self._select_models(bound, prepared, decision))

    async def _aselect(self, choices: Sequence[ToolMetadata], query: QueryBundle) -> SelectorResult:
        return await asyncio.to_thread(self._select, choices, query)

    def _decide(self, request: Request) -> tuple[PreparedBatch, Decision]:
        try:
            return self.router.explain(request)
        except Overloaded:
            return self.router.workload.acquire(lambda: self.router.explain(request), self._wait_s)

    def _select_models(
        self, bound: Sequence[str], prepared: PreparedBatch, decision: Decision
    ) -> list[SingleSelection]:
        """Return the choice of the decision, then the next best ones as far as they are wanted."""
        selected: list[SingleSelection] = []
        all_wrong = 1.0
        for model in (decision.model, *decision.fallbacks)[: self._max_outputs]:
            column = prepared.forecast.models.index(model)
            quality = float(prepared.forecast.quality[0, column])
            cost = float(prepared.cost_usd[0, column])
            all_wrong *= 1 - quality
            if not selected:
                reason = decision.reason
            else:
                reason = (
                    f"{model} is the next best: predicted quality {quality:.3f}, cost {cost:.3g} USD; with it at "
                    f"least one choice is right with a chance of {1 - all_wrong:.3f}, if they err independently"
                )
            selected.append(
                EccosSelection(
                    index=bound.index(model),
                    reason=reason,
                    model=model,
                    quality=quality,
                    cost_usd=cost,
                    decision_id=decision.id,
                )
            )
            if self._enough is not None and 1 - all_wrong >= self._enough:
                break
        return selected


def bind_choices(
    choices: Sequence[ToolMetadata], models: Mapping[str, str] | Sequence[str] | None, pool: Sequence[str]
) -> list[str]:
    """Return the model of each choice. Raise `ValueError` for a choice without a model, or two of one model."""
    if not choices:
        raise ValueError("there are no choices to select from. Give at least one, each bound to a model of the pool.")
    if models is not None and not isinstance(models, Mapping) and len(models) != len(choices):
        raise ValueError(
            f"models names {len(models)} models for {len(choices)} choices. Give one per choice, in order."
        )
    bound: list[str] = []
    shared_names = {name for name, count in Counter(choice.name for choice in choices).items() if count > 1}
    for place, choice in enumerate(choices):
        # query engines without a name of their own all have the same one, which then says nothing
        names = [name for name in (choice.description, choice.name) if name and name not in shared_names]
        named = _find_binding(choice, place, names, models)
        label = repr(names[-1] if names else choice.name)
        if named is not None and named not in pool:
            raise ValueError(
                f"choices[{place}] {label} is bound to {named!r}, which is not in the pool"
                f"{did_you_mean(named, pool) or '.'} The pool has: {', '.join(pool)}."
            )
        model = named or next((name for name in (choice.name, choice.description) if name in pool), None)
        if model is None:
            raise ValueError(
                f"choices[{place}] {label} stands for no model of the pool. Name it like one ({', '.join(pool)}), "
                f"or bind every choice to a model: EccosSelector(models={{{label}: '{pool[0]}', ...}})."
            )
        if model in bound:
            raise ValueError(
                f"choices[{bound.index(model)}] and choices[{place}] are both bound to {model!r}, whose outcomes cannot"
                " tell them apart. Give each pipeline an entry of its own in the pool, with its own recorded outcomes."
            )
        bound.append(model)
    return bound


def _find_binding(
    choice: ToolMetadata, place: int, names: Sequence[str], models: Mapping[str, str] | Sequence[str] | None
) -> str | None:
    """Return the model that the selector or the metadata names. None where only the choice's own name is left."""
    if isinstance(models, Mapping):
        for name in names:
            if name in models:
                return models[name]
    elif models is not None:
        return models[place]
    named: Any = getattr(choice, "model", None)
    return str(named) if named else None
