"""Replay logged traffic under another policy: what it would have chosen, and what that would have been worth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from eccos_core.assembly.finetuned import is_fine_tuned
from eccos_core.assembly.predictor import Progress
from eccos_core.config import Config, load_config
from eccos_core.decision_log import BaseDecisionLog
from eccos_core.domain import Float32Array, FloatArray, Forecast, IntArray, Request
from eccos_core.errors import InfeasibleError, InputError
from eccos_core.io.tokens import text_key
from eccos_core.off_policy import IntervalEstimate, PolicyValue, evaluate_policy
from eccos_core.router import Router
from eccos_core.routing.eligibility import eligibility_mask
from eccos_core.routing.forecast import predict_in_blocks
from eccos_core.routing.latency import leave_out_slow_models, waiting_usd
from eccos_core.routing.logged_traffic import LoggedTraffic, read_traffic
from eccos_core.routing.parts import Parts
from eccos_core.routing.pricing import cost_usd

Verdict: TypeAlias = Literal["higher", "lower", "the same", "cannot tell"]


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What another policy would have done on logged traffic.

    - `requests` were answered, and `labelled` of them have a label. `unanswered` ones are left out, and `planned`
      ones, which several models were asked for.
    - `value`: the doubly robust estimates, for one request on average.
    - `chosen` and `logged`: how many requests each model gets, and got.
    - `explored`: requests whose choice was a matter of chance. Without any, the log measures only the requests on
      which the two policies agree.
    - `learned_from`: requests whose question is in the history that the new predictor learned from. Its forecasts of
      these may be too good.
    """

    log: str
    policy: str
    confidence: float
    requests: int
    unanswered: int
    planned: int
    labelled: int
    explored: int
    learned_from: int
    chosen: Mapping[str, int]
    logged: Mapping[str, int]
    value: PolicyValue

    @property
    def quality_verdict(self) -> Verdict:
        """Whether the quality of the new policy is higher or lower than the logged one."""
        return _verdict(self.value.quality_change)

    @property
    def cost_verdict(self) -> Verdict:
        """Whether the cost of the new policy is higher or lower than the logged one."""
        return _verdict(self.value.cost_change_usd)


def replay(
    config: Config,
    log: BaseDecisionLog,
    policy: Path,
    *,
    since: float | None = None,
    confidence: float = 0.95,
    progress: Progress | None = None,
) -> ReplayReport:
    """Decide the requests of a log again, as the configuration file `policy` would, and estimate what that is worth.

    `config` is the configuration that the log belongs to. Requests are decided one by one in their order, with every
    slot free. Nothing is called, and nothing is logged. Raises `DataError` for a log without answers or of another
    pool, and `InputError` for another encoder where the log holds no texts.
    """
    say = progress or (lambda _: None)
    say("loading the policy")
    with Router.from_yaml(policy, progress=progress) as router:
        parts = router.parts
        say("reading the log")
        found = read_traffic(log, parts.names, since)
        traffic = found.of_single_calls()
        vectors = _vectors(traffic, parts, config, load_config(policy))
        say(f"deciding {len(traffic.entries):,} requests")
        tokens = np.array([entry.input_tokens or 0 for entry in traffic.entries], dtype=np.float64)
        forecast = predict_in_blocks(parts.predictor, vectors, tokens)
        cost = forecast.with_recorded_cost(cost_usd(parts.models, tokens, forecast.output_tokens))
        chosen = _choose(traffic, parts, forecast, cost)
        known = _known_questions(parts)
    models = (*traffic.models, *(name for name in parts.names if name not in traffic.models))
    own = [models.index(name) for name in parts.names]
    missing = np.zeros((2, len(traffic.entries), len(models)))  # a model of the log that the new pool dropped stays 0
    missing[:, :, own] = forecast.quality, cost
    feedback = traffic.feedback(models, (missing[0], missing[1]))
    say("estimating")
    count = Counter(parts.names[column] for column in chosen.tolist())
    return ReplayReport(
        log=traffic.path,
        policy=str(policy),
        confidence=confidence,
        requests=len(traffic.entries),
        unanswered=traffic.unanswered,
        planned=len(found.entries) - len(traffic.entries),
        labelled=int((~np.isnan(feedback.quality)).sum()),
        explored=int((feedback.propensity < 1).sum()),
        learned_from=sum(entry.text_key in known for entry in traffic.entries),
        chosen=dict(count.most_common()),
        logged=dict(Counter(entry.decided_model for entry in traffic.entries).most_common()),
        value=evaluate_policy(feedback, np.array(own)[chosen], confidence=confidence),
    )


def _choose(traffic: LoggedTraffic, parts: Parts, forecast: Forecast, cost: FloatArray) -> IntArray:
    """Return (R,) the index of the model that the parts choose for each logged request, in the order of the log."""
    requests = [_request(entry.request_id, entry.tenant, parts) for entry in traffic.entries]
    tokens = [entry.input_tokens or 0 for entry in traffic.entries]
    eligible = eligibility_mask(requests, parts.models, tokens)
    chosen = np.empty(len(requests), dtype=np.int64)
    for row, (request, entry) in enumerate(zip(requests, traffic.entries, strict=True)):
        quality = forecast.quality[row]
        allowed = leave_out_slow_models(parts, [request], eligible[row : row + 1])[0]
        good = allowed & (quality >= (request.min_quality or 0.0))
        if not good.any():
            best = float(quality[allowed].max())
            raise InfeasibleError(
                "min_quality",
                request.min_quality or 0.0,
                best,
                f"request {request.id!r} of tenant {request.tenant!r}: no model reaches min_quality "
                f"{request.min_quality}; the best that may answer is expected to reach {best:.3f}",
            )
        steering = parts.tenant_steering.get(request.tenant or "", parts.steering)
        chosen[row] = steering.decide(quality, cost[row] + waiting_usd(parts), good).model
        if entry.model in parts.names:
            parts.latency.observe(entry.model, entry.latency_s or 0.0)
    return chosen


def _request(request_id: str, tenant: str | None, parts: Parts) -> Request:
    """Make a request under the rules of its tenant. What else it asked for is not logged."""
    return parts.tenants.narrow(Request(({"role": "user", "content": ""},), id=request_id, tenant=tenant))


def _vectors(traffic: LoggedTraffic, parts: Parts, config: Config, policy: Config) -> Float32Array:
    """Return the logged vectors (R, D) where the policy reads with the same encoder, else encode the logged texts."""
    same = (config.encoder, config.conversation) == (policy.encoder, policy.conversation)
    same = same and not (is_fine_tuned(config) or is_fine_tuned(policy))
    lengths = {len(entry.vector) for entry in traffic.entries}
    if same and lengths == {parts.encoder.dimensions}:
        return np.stack([entry.vector for entry in traffic.entries])
    texts = [entry.text for entry in traffic.entries]
    if any(text is None for text in texts):
        found = ", ".join(map(str, sorted(lengths)))
        raise InputError(
            f"{policy.path}: the policy reads with another encoder ({parts.encoder.dimensions} dimensions) than "
            f"{traffic.path} was written with ({found}), and the log holds no texts to read again. Keep eccos.encoder "
            "as it was, replay a later --since, or set eccos.decision_log.log_prompts for later traffic."
        )
    return parts.encoder.encode([text or "" for text in texts])


def _known_questions(parts: Parts) -> set[str]:
    history = parts.decision_store.history
    return set() if history is None else {text_key(query) for query in history.table()[0].queries}


def _verdict(change: IntervalEstimate) -> Verdict:
    if change == IntervalEstimate(0.0, 0.0, 0.0):
        return "the same"
    if not change.excludes_zero:
        return "cannot tell"
    return "higher" if change.low > 0 else "lower"
