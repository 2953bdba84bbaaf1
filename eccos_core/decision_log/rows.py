"""Turns entries of the decision log into rows of a database, and rows into decisions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from eccos_core.decision_log.calls import calls_json, read_calls
from eccos_core.decision_log.entries import CompletionEntry, DecisionEntry, LoggedDecision
from eccos_core.domain import Judgement
from eccos_core.errors import Attempt
from eccos_core.io.tokens import text_key

DECISION_COLUMNS = (
    "id", "at", "request_id", "session_id", "tenant", "decided_model", "quality", "cost_usd", "usd_per_quality",
    "floor_met", "reason", "forecast", "text", "text_key", "vector", "input_tokens", "propensity", "quality_asked",
    "left_out",
)  # fmt: skip


def decision_row(entry: DecisionEntry, *, log_prompts: bool) -> tuple[object, ...]:
    """Return the values of `DECISION_COLUMNS`."""
    decision = entry.decision
    return (
        decision.id,
        entry.at,
        decision.request_id,
        entry.session_id,
        entry.tenant,
        decision.model,
        decision.quality,
        decision.cost_usd,
        decision.usd_per_quality,
        int(decision.floor_met),
        decision.reason,
        json.dumps(entry.forecast),
        entry.text if log_prompts else None,
        text_key(entry.text),
        np.asarray(entry.vector, dtype=np.float32).tobytes(),
        entry.input_tokens,
        decision.propensity,
        entry.quality_asked,
        json.dumps(entry.left_out),
    )


def completion_row(entry: CompletionEntry) -> tuple[object, ...]:
    """Return model, input tokens, output tokens, USD, latency, time to first token, attempts, calls and decision id."""
    attempts = json.dumps([asdict(attempt) for attempt in entry.attempts]) if entry.attempts else "[]"
    completion = entry.completion
    if completion is None:
        return (*[None] * 6, attempts, "[]", entry.decision_id)
    return (
        completion.model,
        completion.input_tokens,
        completion.output_tokens,
        completion.cost_usd,
        completion.latency_s,
        completion.time_to_first_token_s,
        attempts,
        calls_json(completion.calls),
        entry.decision_id,
    )


def judgement_row(judgement: Judgement | None) -> tuple[object, ...]:
    """Return judge, grade, label before calibration, preference and calibration."""
    if judgement is None:
        return (None,) * 5
    return judgement.judge, judgement.grade, judgement.uncalibrated, judgement.preference, judgement.calibration


def read_decision(row: Mapping[str, Any]) -> LoggedDecision:
    """Read a row of decisions. Columns that an older log lacks have their default."""
    values = dict(row)
    values["floor_met"] = bool(values["floor_met"])
    values["forecast"] = {model: (each[0], each[1]) for model, each in json.loads(values["forecast"]).items()}
    values["vector"] = np.frombuffer(values["vector"], dtype=np.float32)
    values["attempts"] = tuple(Attempt(**each) for each in json.loads(values["attempts"]))
    values["calls"] = read_calls(values.get("calls") or "[]")
    values["left_out"] = tuple(json.loads(values.get("left_out") or "[]"))
    return LoggedDecision(**values)
