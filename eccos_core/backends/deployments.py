"""Several deployments of one model: each call goes to one, by weight, load and recent failures.

Why not `litellm.Router`: it costs a millisecond in every call, and it would choose, retry and fall back by rules of its
own behind the back of our decision; what it would carry for us here is a choice among two or three entries.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from eccos_core.errors import BackendError

FIRST_COOLDOWN_S = 1.0
LONGEST_COOLDOWN_S = 60.0
# failures that say something about the deployment, not about the request
BLAMES_DEPLOYMENT = frozenset(
    {"rate_limit", "unavailable", "connection", "timeout", "authentication", "not_found", "out_of_memory", "overloaded"}
)


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


@dataclass(slots=True, eq=False)
class _Use:
    """How one deployment is doing."""

    deployment: DeploymentLike
    share: float
    in_flight: int = 0
    served: int = 0
    failures: int = 0
    cooling_until: float = 0.0


class DeploymentBalancer:
    """Chooses among the deployments of one model. Safe to use from several threads.

    Shares follow `weight`, else `rpm`, else `tpm`, as in LiteLLM. A deployment that failed is left alone for as long
    as it asked (Retry-After), else one second, doubling up to a minute; when all are left alone, the one that comes
    back first is tried.
    """

    def __init__(self, deployments: Sequence[DeploymentLike], clock: Callable[[], float] = time.monotonic) -> None:
        self._uses = [_Use(deployment, _share(deployment)) for deployment in deployments]
        self._clock = clock
        self._lock = threading.Lock()

    @contextmanager
    def choose(self) -> Iterator[DeploymentLike]:
        """The deployment for one call; the block's outcome is remembered."""
        with self._lock:
            chosen = min(self._uses, key=self._reluctance)
            chosen.in_flight += 1
            chosen.served += 1
        try:
            yield chosen.deployment
        except BackendError as error:
            if error.kind in BLAMES_DEPLOYMENT:
                self._cool(chosen, error.retry_after_s)
            raise
        else:
            with self._lock:
                chosen.failures, chosen.cooling_until = 0, 0.0
        finally:
            with self._lock:
                chosen.in_flight -= 1

    def _reluctance(self, use: _Use) -> tuple[float, float, float]:
        cooling = max(0.0, use.cooling_until - self._clock())
        return cooling, use.in_flight / use.share, use.served / use.share

    def _cool(self, use: _Use, asked_s: float | None) -> None:
        with self._lock:
            use.failures += 1
            backoff_s = FIRST_COOLDOWN_S * 2.0 ** min(use.failures - 1, 10)
            use.cooling_until = self._clock() + min(LONGEST_COOLDOWN_S, backoff_s if asked_s is None else asked_s)


def _share(deployment: DeploymentLike) -> float:
    for share in (deployment.weight, deployment.rpm, deployment.tpm):
        if share is not None and share > 0:
            return float(share)
    return 1.0
