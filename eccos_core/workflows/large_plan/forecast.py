"""Forecast one shard, in a process that builds the router once."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eccos_core.domain import Policy, Request
from eccos_core.errors import InputError
from eccos_core.io.files import parse_object
from eccos_core.router import Router
from eccos_core.routing.certified import fingerprint
from eccos_core.workflows.large_plan.cut import ShardPlace, read_shard
from eccos_core.workflows.large_plan.store import write_forecast
from eccos_core.workflows.plan import parse_request

FORMAT = 1  # of the forecast files
_AT_ONCE = 1024  # requests: one block of the predictor, so a worker keeps to one core and to little memory


@functools.lru_cache(maxsize=1)
def router_here(config: Path) -> Router:
    """Return the router of a configuration file, built once in this process."""
    return Router.from_yaml(config)


def digest_router(router: Router, policy: Policy) -> str:
    """Return 32 hexadecimal digits that change with anything that changes a forecast.

    Raises `InputError` for a router whose forecast is not the same in every process.
    """
    parts = router.parts
    if parts.planner is not None:
        raise InputError(
            "a plan in shards cannot value plans of several calls. Take escalate out of the policy, or plan fewer "
            "requests without --output"
        )
    if parts.applied_learner is not None:
        raise InputError(
            "a plan in shards needs a forecast that stays the same, and eccos.learning corrects it with each label. "
            "Leave that section out, or plan fewer requests without --output"
        )
    try:
        digest = fingerprint(parts.models, parts.encoder, parts.predictor)
    except InputError as error:
        raise InputError(
            "a plan in shards needs a predictor that stays the same, and yours "
            f"({type(parts.predictor).__name__}) reads the history at each decision. Turn predictor.online off, or "
            "plan fewer requests without --output"
        ) from error
    confidence = getattr(policy, "confidence", None)
    about = (FORMAT, digest, confidence, parts.models)
    settings = (parts.conversation, parts.latency_rule)
    return hashlib.sha256(repr((about, settings)).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class ForecastShard:
    """Encode and forecast a shard, and write it to `path`. It runs in any process that sees both files."""

    config: Path
    policy: Policy
    place: ShardPlace
    path: Path

    def run(self) -> int:
        """Return the number of requests. Raises `DataError` with the line, and `NoEligibleModelError`."""
        router = router_here(self.config)
        prepared = [router.decider.prepare(block).under(self.policy) for block in self._blocks()]
        asked = [request.min_quality or 0.0 for part in prepared for request in part.requests]
        write_forecast(
            self.path,
            quality=np.concatenate([part.quality.astype(np.float32) for part in prepared]),
            cost_usd=np.concatenate([part.weighed_usd.astype(np.float32) for part in prepared]),
            eligible=np.concatenate([part.eligible for part in prepared]),
            min_quality=np.array(asked, dtype=np.float32),
            familiarity=np.concatenate([part.forecast.familiarity.astype(np.float32) for part in prepared]),
            ids=np.array([request.id for part in prepared for request in part.requests], dtype=np.str_),
        )
        return self.place.requests

    def _blocks(self) -> Iterator[list[Request]]:
        block: list[Request] = []
        for row, (line, raw) in enumerate(read_shard(self.place), start=self.place.start):
            entry = parse_object(raw, self.place.file, line)
            entry.setdefault("id", str(row))  # a fresh id would differ from run to run
            block.append(parse_request(entry, self.place.file, line))
            if len(block) == _AT_ONCE:
                yield block
                block = []
        if block:
            yield block
