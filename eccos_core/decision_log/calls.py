"""The calls of a plan as JSON, for the decision log. No text of an answer is among them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from eccos_core.domain import AnswerConfidence, PlanCall


def calls_json(calls: Sequence[PlanCall]) -> str:
    """Return the calls as JSON. What is not known of an answer is left out."""
    return json.dumps([_as_json(call) for call in calls]) if calls else "[]"


def read_calls(text: str) -> tuple[PlanCall, ...]:
    """Read what `calls_json` wrote."""
    return tuple(
        PlanCall(**{**call, "confidence": AnswerConfidence(**known) if (known := call.get("confidence")) else None})
        for call in json.loads(text)
    )


def _as_json(call: PlanCall) -> dict[str, object]:
    values = asdict(call)
    if call.confidence is not None:
        values["confidence"] = {name: value for name, value in values["confidence"].items() if value is not None}
    return values
