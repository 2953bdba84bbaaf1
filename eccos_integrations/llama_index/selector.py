"""`EccosSelector`: which of the choices of a router query engine or router retriever, by predicted quality and cost."""

from __future__ import annotations

import asyncio
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
from eccos_integrations.llama_index.errors import as_llama_index_expects
from eccos_integrations.llama_index.settings import the_router

WAIT_S = 60.0


@dataclass
class ModelChoice(ToolMetadata):
    """The metadata of a choice that says which model, or recorded pipeline, of the pool it stands for."""

    model: str = ""


class EccosSelection(SingleSelection):
    """One selected choice, with the numbers: quality in [0, 1] and cost in USD are predicted."""

    model: str
    quality: float
    cost_usd: float
    decision_id: str


class EccosSelector(BaseSelector):
    """Selects the cheapest choice that is good enough for the query, or several.

        engine = RouterQueryEngine(EccosSelector(router=llm.router, models={"summary": "large"}), tools)

    Every choice stands for a model of the pool, or for a pipeline that has an entry and recorded outcomes there. It is
    bound by `models` (name or description of a choice -> model, or one model per choice in order), else by its metadata
    (`ModelChoice`), else by its own name or description, when that is a model's name.

    `max_outputs`: most choices selected; the further ones are the next best. `enough`: fewer are taken where at least
    one of them is predicted to be right with this chance. `min_quality`: least predicted quality. `wait_s`: longest
    wait for a free slot.
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
        wait_s: float = WAIT_S,
    ) -> None:
        if max_outputs < 1:
            raise ValueError(f"max_outputs is {max_outputs}, must be >= 1")
        if enough is not None and not 0 <= enough <= 1:
            raise ValueError(f"enough is {enough}, must be a chance in [0, 1]")
        self.router = the_router(type(self).__name__, config, router)
        self._models = models
        self._max_outputs = max_outputs
        self._enough = enough
        self._min_quality = min_quality
        self._tenant = tenant
        self._wait_s = wait_s

    def _get_prompts(self) -> PromptDictType:
        """None: no model is asked which choice to take."""
        return {}

    def _update_prompts(self, prompts: PromptDictType) -> None:
        """Nothing to update."""

    def _select(self, choices: Sequence[ToolMetadata], query: QueryBundle) -> SelectorResult:
        bound = bindings(choices, self._models, [model.name for model in self.router.models])
        with as_llama_index_expects():
            request = Request.of(
                query.query_str, allow=frozenset(bound), min_quality=self._min_quality, tenant=self._tenant
            )
            prepared, decision = self._decided(request)
        return SelectorResult(selections=self._selections(bound, prepared, decision))

    async def _aselect(self, choices: Sequence[ToolMetadata], query: QueryBundle) -> SelectorResult:
        return await asyncio.to_thread(self._select, choices, query)

    def _decided(self, request: Request) -> tuple[PreparedBatch, Decision]:
        try:
            return self.router.explain(request)
        except Overloaded:
            return self.router.workload.acquire(lambda: self.router.explain(request), self._wait_s)

    def _selections(self, bound: Sequence[str], prepared: PreparedBatch, decision: Decision) -> list[SingleSelection]:
        """The decision's own choice, and the next best ones as far as they are wanted."""
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


def bindings(
    choices: Sequence[ToolMetadata], models: Mapping[str, str] | Sequence[str] | None, pool: Sequence[str]
) -> list[str]:
    """The model of each choice. Raises `ValueError` for a choice without one, and for a model with two choices."""
    if not choices:
        raise ValueError("there are no choices to select from; give at least one, each bound to a model of the pool")
    if models is not None and not isinstance(models, Mapping) and len(models) != len(choices):
        raise ValueError(f"models names {len(models)} models for {len(choices)} choices; give one per choice, in order")
    bound: list[str] = []
    for place, choice in enumerate(choices):
        told = _told(choice, place, models)
        label = repr(choice.name or choice.description)
        if told is not None and told not in pool:
            raise ValueError(
                f"choices[{place}] {label} is bound to {told!r}, which is not in the pool"
                f"{did_you_mean(told, pool) or '.'} The pool has: {', '.join(pool)}."
            )
        model = told or next((name for name in (choice.name, choice.description) if name in pool), None)
        if model is None:
            raise ValueError(
                f"choices[{place}] {label} stands for no model of the pool; name it like one "
                f"({', '.join(pool)}), or say EccosSelector(models={{{label}: '{pool[0]}'}})"
            )
        if model in bound:
            raise ValueError(
                f"choices[{bound.index(model)}] and choices[{place}] are both bound to {model!r}, whose outcomes cannot"
                " tell them apart; give each pipeline an entry of its own in the pool, with its own recorded outcomes"
            )
        bound.append(model)
    return bound


def _told(choice: ToolMetadata, place: int, models: Mapping[str, str] | Sequence[str] | None) -> str | None:
    """What the selector or the metadata says; None where only the choice's own name is left."""
    if isinstance(models, Mapping):
        for key in (choice.name, choice.description):
            if key is not None and key in models:
                return models[key]
    elif models is not None:
        return models[place]
    told: Any = getattr(choice, "model", None)
    return str(told) if told else None
