"""What both integrations say about an answer, and how they recognise a conversation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from eccos_core.domain import AUTHOR, REASONING_FIELDS, Completion, Message, PlanCall

PROVIDER = "eccos"  # the name under which a framework shows answers of the pool


def describe_completion(completion: Completion) -> dict[str, Any]:
    """Return what an answer cost and why this model gave it: predicted quality and cost beside the real cost.

    Costs are in USD, times in seconds, qualities in [0, 1]. `calls` are those of a plan, in order. What is not known of
    an answer's confidence is left out.
    """
    description: dict[str, Any] = {
        "finish_reason": completion.finish_reason or "stop",
        "cost_usd": completion.cost_usd,
        "estimated": completion.estimated,
        "latency_s": completion.latency_s,
        "attempts": completion.attempts,
    }
    if completion.time_to_first_token_s is not None:
        description["time_to_first_token_s"] = completion.time_to_first_token_s
    if completion.logprobs:
        description["logprobs"] = dict(completion.logprobs)
    decision = completion.decided_by
    if decision is not None:
        description |= {
            "decision_id": decision.id,
            "decided_model": decision.model,
            "predicted_quality": decision.quality,
            "predicted_cost_usd": decision.cost_usd,
            "runner_up": decision.runner_up,
            "reason": decision.reason,
            "familiarity": decision.familiarity,
            "floor_met": decision.floor_met,
            "propensity": decision.propensity,
            "quality_source": decision.quality_source,
        }
    if completion.confidence is not None:
        description["confidence"] = _known(asdict(completion.confidence))
    if completion.calls:
        description["calls"] = [_describe_call(call) for call in completion.calls]
    return description


def _describe_call(call: PlanCall) -> dict[str, Any]:
    described = _known(asdict(call))
    if call.confidence is not None:
        described["confidence"] = _known(asdict(call.confidence))
    return described


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def recall_reasoning(fields: Mapping[str, Any], author: str | None) -> dict[str, Any]:
    """Return the reasoning in an answer's fields, for a message that goes back to the model that wrote it.

    `author` is that model of the pool. None: somebody else wrote the answer, and nothing is returned.
    """
    kept = {name: fields[name] for name in REASONING_FIELDS if fields.get(name)}
    return {**kept, AUTHOR: author} if author and kept else {}


def name_conversation(messages: Sequence[Message], parameters: Mapping[str, Any]) -> str | None:
    """Name a conversation by a digest of its beginning, up to the first user message.

    All turns of an agent share their beginning, and so does what a provider has cached of them. Return None for a
    question that stands alone: one without tools and without an earlier answer.
    """
    if not parameters.get("tools") and all(message.get("role") != "assistant" for message in messages):
        return None
    beginning = []
    for message in messages:
        beginning.append((message.get("role"), message.get("content")))
        if message.get("role") == "user":
            break
    return hashlib.sha256(json.dumps(beginning, default=str).encode()).hexdigest()[:32]
