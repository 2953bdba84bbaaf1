"""Several deployments of one model: each call goes to one, by weight, load and recent failures.

Why not `litellm.Router`: it costs a millisecond in every call, and it would choose, retry and fall back by rules of its
own behind the back of our decision; what it would carry for us here is a choice among two or three entries.
"""

from __future__ import annotations

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


@dataclass(frozen=True, slots=True)
class SimpleDeployment:
    """A model that is reached in one way, by LiteLLM's name for it. Keys come from the environment."""

    litellm_model: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    model_info: Mapping[str, Any] = field(default_factory=dict)
    rpm: int | None = None
    tpm: int | None = None
    weight: float | None = None


@dataclass(slots=True, eq=False)
class _Use:
    """How one deployment is doing."""

    deployment: DeploymentLike
    share: float
    in_flight: int = 0
    served: int = 0
    failures: int = 0
    cooling_until: float = 0.0


class LoadBalancer:
    """Chooses among the deployments of one model. Safe to use from several threads.

    Shares follow `weight`, else `rpm`, else `tpm`, as in LiteLLM. A deployment that failed is left alone for as long
    as it asked (Retry-After), else one second, doubling up to a minute; when all are left alone, the one that comes
    back first is tried.
    """

    def __init__(self, deployments: Sequence[DeploymentLike], clock: Callable[[], float] = time.monotonic) -> None:
        self._uses = [_Use(deployment, _share(deployment)) for deployment in deployments]
        self._clock = clock
        self._lock = threading.Lock()

    def choose(self) -> AbstractContextManager[DeploymentLike]:
        """The deployment for one call; the block's outcome is remembered."""
        return _Choice(self)

    def _begin(self) -> _Use:
        with self._lock:
            chosen = min(self._uses, key=self._reluctance) if len(self._uses) > 1 else self._uses[0]
            chosen.in_flight += 1
            chosen.served += 1
        return chosen

    def _end(self, chosen: _Use, error: BaseException | None) -> None:
        with self._lock:
            chosen.in_flight -= 1
            if error is None:
                chosen.failures, chosen.cooling_until = 0, 0.0
            elif isinstance(error, BackendError) and error.kind.blames_deployment:
                chosen.failures += 1
                backoff_s = FIRST_COOLDOWN_S * 2.0 ** min(chosen.failures - 1, 10)
                asked_s = backoff_s if error.retry_after_s is None else error.retry_after_s
                chosen.cooling_until = self._clock() + min(LONGEST_COOLDOWN_S, asked_s)

    def _reluctance(self, use: _Use) -> tuple[float, float, float]:
        cooling = max(0.0, use.cooling_until - self._clock())
        return cooling, use.in_flight / use.share, use.served / use.share


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


def _share(deployment: DeploymentLike) -> float:
    for share in (deployment.weight, deployment.rpm, deployment.tpm):
        if share is not None and share > 0:
            return float(share)
    return 1.0
