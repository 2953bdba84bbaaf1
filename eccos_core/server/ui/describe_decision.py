"""One decision as JSON: what was forecast, what happened, and what would have been chosen at other prices."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from eccos_core.decision_log import LoggedDecision
from eccos_core.server.ui.counterfactual import best_by_price, choose_at
from eccos_core.server.ui.viewer import Viewer

MOST_LETTERS = 20_000


def describe_decision(decision: LoggedDecision, viewer: Viewer, *, keeps_prompts: bool) -> dict[str, Any]:
    """Return all about a decision. Its text, session and errors in full are for admins only.

    The text is there only where the log keeps prompts now, even if an older row still has one.
    """
    ranges = best_by_price(decision.forecast, decision.left_out)
    at_price = choose_at(ranges, decision.usd_per_quality)
    text = decision.text if viewer.is_admin and keeps_prompts else None
    return {
        "log": True,
        "id": decision.id,
        "at": decision.at,
        "tenant": decision.tenant,
        "request_id": decision.request_id,
        "session_id": decision.session_id if viewer.is_admin else None,
        "decided_model": decision.decided_model,
        "model": decision.model,
        "reason": decision.reason,
        "quality": decision.quality,
        "quality_asked": decision.quality_asked,
        "cost_usd": decision.cost_usd,
        "paid_usd": decision.paid_usd,
        "latency_s": decision.latency_s,
        "time_to_first_token_s": decision.time_to_first_token_s,
        "input_tokens": decision.input_tokens,
        "output_tokens": decision.output_tokens,
        "floor_met": decision.floor_met,
        "propensity": decision.propensity,
        "usd_per_quality": decision.usd_per_quality,
        "label": decision.label,
        "label_source": decision.label_source,
        "attempts": [
            {
                "model": each.model,
                "kind": str(each.kind),
                "latency_s": each.latency_s,
                "message": each.message if viewer.is_admin else None,
            }
            for each in decision.attempts
        ],
        "calls": [
            {
                "model": call.model,
                "cost_usd": call.cost_usd,
                "latency_s": call.latency_s,
                "quality": None if call.confidence is None else call.confidence.quality,
                "accepted": call.accepted,
                "why": call.why,
            }
            for call in decision.calls
        ],
        "forecast": [
            {"model": name, "quality": quality, "cost_usd": cost, "may_answer": name not in decision.left_out}
            for name, (quality, cost) in decision.forecast.items()
        ],
        "prices": [asdict(each) for each in ranges],
        "chosen_at_price": at_price,
        "notes": _notes(decision, at_price),
        "text": None if text is None else text[:MOST_LETTERS],
        "keeps_prompts": keeps_prompts,
    }


def _notes(decision: LoggedDecision, at_price: str | None) -> list[str]:
    """Say what the forecasts and the price alone do not explain."""
    notes = []
    if at_price is not None and at_price != decision.decided_model:
        notes.append(
            f"At this price the forecasts alone would choose {at_price}. Waiting, load, a plan or the conversation's "
            "cache counted too, or the router explored."
        )
    if decision.propensity < 1:
        notes.append(
            f"The router explored: this request had a chance of {decision.propensity:.3g} to go to this model."
        )
    if decision.model is not None and decision.model != decision.decided_model and not decision.calls:
        notes.append(f"{decision.decided_model} did not answer, so {decision.model} was asked.")
    if decision.model is None:
        notes.append("The log has no answer of this decision.")
    if not decision.floor_met:
        notes.append("The policy could not be met. The nearest attainable answer was taken.")
    return notes
