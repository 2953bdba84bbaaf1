"""`EccosDecisionModel`: LangChain's decision model that chooses among the models of the pool."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Annotated, Any

import numpy as np
from langchain_core.decisions import Answer, BaseDecisionModel, Choice, ChoiceAnswer, ClassifierResponse, Question
from langchain_core.messages import BaseMessage, HumanMessage
from pydantic import ConfigDict, Field, SkipValidation, model_validator

from eccos_core.domain import Decision, FloatArray, Model, Request
from eccos_core.errors import did_you_mean
from eccos_core.router import Router
from eccos_core.routing.prepared import PreparedBatch
from eccos_integrations._shared.errors import InvalidRequestError
from eccos_integrations._shared.messages import PROVIDER
from eccos_integrations._shared.settings import resolve_router
from eccos_integrations.langchain.errors import raise_langchain_errors
from eccos_integrations.langchain.messages import to_openai

_POINTS = 128  # quantiles of a value that the integral is taken on
_normal = NormalDist()


class EccosDecisionModel(BaseDecisionModel):
    """Answer which model of the pool should take a request. No model is called for that.

        classifier = EccosDecisionModel(config="eccos.yaml")
        ModelRouterMiddleware(choices=..., instructions="Choose a model.", classifier=classifier)

    It answers `Choice` questions. Each choice is a model of the pool: its label is the model's name, or its criteria
    name the model. A criteria text names a model by the whole name, once: "small, for simple tasks". Give `config` or
    `router`. `min_quality` is the least predicted quality in [0, 1]. `tenant` says whose rules hold.

    `choice` is the router's decision among these models. `probabilities[label]` is the probability that the label's
    model is worth the most: quality at the price of the router's policy, minus cost, where the quality is only known
    as well as the forecast's error says. Models that may not answer have 0. `confidence` is the probability of the
    choice. `request_id` is the id of the decision, for `router.record`, where one question was asked.

    Raises `InvalidRequestError` (a `ValueError`) for another type of question, for a choice that names no model of the
    pool, and for two that name the same.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    model: str = PROVIDER
    """The name under which traces show it."""
    config: str | Path | None = Field(default=None)
    """Path of the configuration file."""
    router: Annotated[Router, SkipValidation] = Field(default=None, repr=False, exclude=True)  # type: ignore[assignment] # never None once validated
    """An `eccos_core.Router`."""
    min_quality: float | None = Field(default=None, ge=0, le=1)
    """Least predicted quality of the model, in [0, 1]."""
    tenant: str | None = None
    """Whose rules hold (section `eccos.tenants`)."""

    @model_validator(mode="after")
    def _set_router(self) -> EccosDecisionModel:
        self.router = resolve_router(type(self).__name__, self.config, self.router)
        return self

    @property
    def _provider(self) -> str:
        return PROVIDER

    def _classify(self, state: Any, questions: dict[str, Question]) -> ClassifierResponse:
        """Answer the questions. `_aclassify` of LangChain does so in a thread."""
        if not questions:
            raise InvalidRequestError("there are no questions. Give at least one Choice among models of the pool.")
        choices = {name: _require_choice(name, question) for name, question in questions.items()}
        messages = to_openai(read_state(state))
        with raise_langchain_errors():
            labels = {name: match_choices(name, each, self.router.models) for name, each in choices.items()}
            answers: dict[str, Answer] = {}
            decisions: list[str] = []
            for name, models in labels.items():
                allow = frozenset(models.values())
                request = Request(messages, allow=allow, min_quality=self.min_quality, tenant=self.tenant)
                prepared, decision = self.router.explain(request)
                answers[name] = build_answer(models, prepared, decision)
                decisions.append(decision.id)
        return ClassifierResponse(
            model=self.model, answers=answers, request_id=decisions[0] if len(decisions) == 1 else None
        )


def _require_choice(name: str, question: Question) -> Choice:
    if isinstance(question, Choice):
        return question
    raise InvalidRequestError(
        f"question {name!r} is a {type(question).__name__}. EccosDecisionModel answers Choice questions among models "
        "of the pool, and no others. Ask another decision model."
    )


def match_choices(name: str, question: Choice, pool: Sequence[Model]) -> dict[str, str]:
    """Return the model's name of each label. Raise `InvalidRequestError` where a label names none, or one twice."""
    names = [model.name for model in pool]
    found: dict[str, str] = {}
    for label, criteria in question.criteria.items():
        named = [label] if label in names else _find_names(criteria, names)
        if len(named) != 1:
            why = f"names {', '.join(named)}, must name one" if named else "names no model of the pool"
            meant = did_you_mean(label, names) if not named else ""
            raise InvalidRequestError(
                f"question {name!r}: choice {label!r} {why}{meant or '.'} The pool has: {', '.join(names)}. Use the "
                "model's name as the label, or write it into the criteria."
            )
        if named[0] in found.values():
            raise InvalidRequestError(
                f"question {name!r}: choice {label!r} names {named[0]!r}, and so does another. Name each model once."
            )
        found[label] = named[0]
    return found


def _find_names(criteria: Any, names: Sequence[str]) -> list[str]:
    """Return the names that stand in the criteria as whole words."""
    text = criteria if isinstance(criteria, str) else json.dumps(criteria, ensure_ascii=False)
    return [name for name in names if re.search(rf"(?<![\w/:.-]){re.escape(name)}(?![\w/:-])(?!\.\w)", text)]


def build_answer(models: Mapping[str, str], prepared: PreparedBatch, decision: Decision) -> ChoiceAnswer:
    """Return the answer of one question. `models` maps labels to models, `prepared` has the numbers of the decision."""
    columns = {name: column for column, name in enumerate(prepared.forecast.models)}
    chosen = next(label for label, model in models.items() if model == decision.model)
    able = [label for label, model in models.items() if prepared.good[0, columns[model]]]
    rows = [columns[models[label]] for label in able]
    price = decision.usd_per_quality
    likely = probability_of_best(
        price * prepared.quality[0, rows] - prepared.weighed_usd[0, rows], price * prepared.forecast.quality_se[0, rows]
    )
    probabilities = {**dict.fromkeys(models, 0.0), **dict(zip(able, likely.tolist(), strict=True))}
    return ChoiceAnswer(
        type="choice", choice=chosen, probabilities=probabilities, confidence=min(probabilities[chosen], 1.0)
    )


def probability_of_best(mean: FloatArray, error: FloatArray) -> FloatArray:
    """Return (M,) the probability of each of M independent normal values to be the largest. They add up to 1.

    `mean` and `error` are (M,), in one unit. Values that are certain and equal share what they have. The integral of
    density times the others' distribution functions is taken on 128 quantiles of each value.
    """
    if len(mean) == 1:
        return np.ones(1)
    spread = max(float(np.ptp(mean)), float(error.max()))
    if spread == 0:
        return np.full(len(mean), 1 / len(mean))
    error = np.maximum(error, 1e-9 * spread)
    quantiles = np.array([_normal.inv_cdf((k + 0.5) / _POINTS) for k in range(_POINTS)])
    best = np.empty(len(mean))
    for m in range(len(mean)):
        at = mean[m] + error[m] * quantiles
        others = [k for k in range(len(mean)) if k != m]
        below = [[_normal.cdf(z) for z in (at - mean[k]) / error[k]] for k in others]
        best[m] = np.prod(below, axis=0).mean()
    return np.asarray(best / best.sum())


def read_state(state: Any) -> list[BaseMessage]:
    """Return the conversation of a decision model's state. Other JSON is one user message."""
    if isinstance(state, Mapping) and _are_messages(state.get("messages")):
        state = state["messages"]
    if isinstance(state, BaseMessage):
        return [state]
    if _are_messages(state):
        return list(state)
    return [HumanMessage(state if isinstance(state, str) else json.dumps(state, default=_write_out))]


def _are_messages(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(each, BaseMessage) for each in value)


def _write_out(value: Any) -> Any:
    return {"type": value.type, "content": value.text} if isinstance(value, BaseMessage) else str(value)
