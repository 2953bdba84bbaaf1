"""Several deployments of one model: each call goes to one, by weight, load and recent failures.

Why not `litellm.Router`: it costs a millisecond in every call, and it would choose, retry and fall back by rules of its
own behind the back of our decision; what it would carry for us here is a choice among two or three entries.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol

from eccos_core.errors import BackendError

FIRST_COOLDOWN_S = 1.0
LONGEST_COOLDOWN_S = 60.0
LONGEST_ASKED_S = 3600.0  # of what a server asks for with Retry-After
SHARE_UNITS = ("weight", "rpm", "tpm")


class DeploymentLike(Protocol):
    """What the backend needs to know of a deployment; `eccos_core.config.Deployment` is one."""

    @property
    def litellm_model(self) -> str:
        """LiteLLM's name of the model, with its provider."""
        ...

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The entry's `litellm_params`."""
        ...

    @property
    def model_info(self) -> Mapping[str, Any]:
        """The entry's `model_info`."""
        ...

    @property
    def rpm(self) -> int | None:
        """Requests per minute."""
        ...

    @property
    def tpm(self) -> int | None:
        """Tokens per minute."""
        ...

    @property
    def weight(self) -> float | None:
        """Share of the calls."""
        ...

    @property
    def order(self) -> int | None:
        """The lowest comes first."""
        ...


@dataclass(frozen=True, slots=True)
class SimpleDeployment:
    """A model that is reached in one way, by LiteLLM's name for it. Keys come from the environment."""

    litellm_model: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    model_info: Mapping[str, Any] = field(default_factory=dict)
    rpm: int | None = None
    tpm: int | None = None
    weight: float | None = None
    order: int | None = None


@dataclass(slots=True, eq=False)
class _Use:
    """How one deployment is doing. `asked_until` is what its server asked for, `cooling_until` is our own caution."""

    deployment: DeploymentLike
    share: float
    order: float
    in_flight: int = 0
    served: int = 0
    failures: int = 0
    cooling_until: float = 0.0
    asked_until: float = 0.0

    def left_alone_s(self, now: float) -> float:
        return max(0.0, self.cooling_until - now, self.asked_until - now)


class LoadBalancer:
    """Chooses among the deployments of one model. Safe to use from several threads.

    The lowest `order` comes first, as in LiteLLM. Within one order, shares follow one unit: `weight` where any
    deployment has one, else `rpm`, else `tpm`. A deployment whose server named a time (Retry-After) is left alone until
    then, at most an hour, whatever its earlier calls come to. Any other one that failed is left alone for a second,
    doubling up to a minute. When all are left alone, the one that comes back first is tried.
    """

    def __init__(self, deployments: Sequence[DeploymentLike], clock: Callable[[], float] = time.monotonic) -> None:
        shares = _shares(deployments)
        orders = [_order(way) for way in deployments]
        self._uses = [_Use(*each) for each in zip(deployments, shares, orders, strict=True)]
        self._clock = clock
        self._lock = threading.Lock()
        self.deployments = tuple(deployments)

    def choose(self) -> AbstractContextManager[DeploymentLike]:
        """Return the block of one call, which gives its deployment. The block's outcome is remembered."""
        return _Choice(self)

    def redirect(self, error: BackendError) -> BackendError:
        """Return the error of a call, which now says when *any* deployment of the model can be called."""
        with self._lock:
            now = self._clock()
            if len(self._uses) > 1 and error.retryable and error.kind.blames_deployment:
                error.elsewhere = any(use.left_alone_s(now) == 0 for use in self._uses)
                first = min(use.asked_until for use in self._uses)
                error.retry_after_s = first - now if first > now else None
        return error

    def _begin(self) -> _Use:
        with self._lock:
            now = self._clock()
            uses = self._uses
            chosen = min(uses, key=lambda use: self._reluctance(use, now)) if len(uses) > 1 else uses[0]
            chosen.in_flight += 1
            chosen.served += 1
        return chosen

    def _end(self, chosen: _Use, error: BaseException | None) -> None:
        with self._lock:
            now = self._clock()
            chosen.in_flight -= 1
            if error is None:
                chosen.failures, chosen.cooling_until = 0, 0.0
            elif isinstance(error, BackendError) and error.kind.blames_deployment:
                chosen.failures += 1
                if error.retry_after_s is None:
                    backoff_s = FIRST_COOLDOWN_S * 2.0 ** min(chosen.failures - 1, 10)
                    chosen.cooling_until = now + min(LONGEST_COOLDOWN_S, backoff_s)
                else:
                    chosen.asked_until = max(chosen.asked_until, now + min(LONGEST_ASKED_S, error.retry_after_s))

    @staticmethod
    def _reluctance(use: _Use, now: float) -> tuple[float, float, float, float]:
        return use.left_alone_s(now), use.order, use.in_flight / use.share, use.served / use.share


class _Choice(AbstractContextManager[DeploymentLike]):
    """One call by one deployment."""

    __slots__ = ("_balancer", "_use")

    def __init__(self, balancer: LoadBalancer) -> None:
        self._balancer = balancer

    def __enter__(self) -> DeploymentLike:
        self._use = self._balancer._begin()
        return self._use.deployment

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._balancer._end(self._use, error)


def _shares(deployments: Sequence[DeploymentLike]) -> list[float]:
    """Shares in one unit. Without a weight a deployment has 1, without a limit the average of those that have one."""
    for unit in SHARE_UNITS:
        named = [float(share) for way in deployments if (share := getattr(way, unit)) is not None and share > 0]
        if named:
            usual = 1.0 if unit == "weight" else sum(named) / len(named)
            return [float(getattr(way, unit) or usual) for way in deployments]
    return [1.0] * len(deployments)


def _order(deployment: DeploymentLike) -> float:
    order = getattr(deployment, "order", None)  # a deployment of your own may have none
    return math.inf if order is None else float(order)
