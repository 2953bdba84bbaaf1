"""Decide for LiteLLM, and remember what was decided until LiteLLM says how it ended."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from eccos_core.domain import Model, Request
from eccos_core.errors import EccosError, RequestError
from eccos_core.router import Router
from eccos_core.routing.eligibility import find_exclusion
from eccos_core.routing.outside_call import OutsideCall
from eccos_integrations.litellm.pool_names import PoolNames
from eccos_integrations.litellm.refusals import EscalationUnsupportedError
from eccos_integrations.litellm.requests import DECISION_KEY, Asked, PassThrough

CONFIG_VARIABLE = "ECCOS_CONFIG"  # the file that configures eccos in a proxy, where it is not the proxy's own
MOST_CALLS = 20_000  # that are remembered. The oldest are given up first
LONGEST_CALL_S = 600.0  # after which a call that LiteLLM never reported is given up, if the router waits no longer
_ANY = ({"role": "user", "content": ""},)
_log = logging.getLogger("eccos.litellm")


class OnceLog:
    """Writes each warning once. Safe to use from several threads."""

    def __init__(self) -> None:
        self._said: set[str] = set()
        self._changing = threading.Lock()

    def warn(self, message: str) -> None:
        """Write a warning, unless it was written before."""
        with self._changing:
            is_new = message not in self._said and len(self._said) < MOST_CALLS
            self._said.add(message)
        if is_new:
            _log.warning("%s", message)


ONCE = OnceLog()


class Bridge:
    """Lets a router of eccos decide requests of LiteLLM. Safe to use from several threads and tasks.

    `models` adds to what is known of LiteLLM's names: a `litellm_params.model`, and the model of the pool that it is.
    """

    def __init__(self, router: Router, models: Mapping[str, str] | None = None) -> None:
        self.router = router
        self.names = PoolNames(router, models)
        check_single_calls(router)

    async def abegin(self, asked: Asked, candidates: Collection[str]) -> OutsideCall:
        """Decide among candidates, which are models of the pool, and hold a slot of the chosen one.

        Raises `PassThrough` for what eccos cannot read, or could not decide for an unexpected reason, which is logged.
        Raises `EccosError` where its rules allow no model.
        """
        request = self._read(asked, candidates)
        try:
            call = await self.router.abegin_call(request)
        except EccosError:
            raise
        except Exception as error:
            raise self._failed(error) from error
        return OPEN_CALLS.add(self, call)

    def begin(self, asked: Asked, candidates: Collection[str]) -> OutsideCall:
        """The synchronous twin of `abegin`."""
        request = self._read(asked, candidates)
        try:
            call = self.router.begin_call(request)
        except EccosError:
            raise
        except Exception as error:
            raise self._failed(error) from error
        return OPEN_CALLS.add(self, call)

    def permitted(self, tenant: str | None, candidates: Collection[str]) -> frozenset[str]:
        """Return which candidates the tenant's hard rules allow. It holds for requests that pass through too."""
        try:
            request = self.router.parts.tenants.narrow(Request(_ANY, tenant=tenant, allow=frozenset(candidates)))
        except RequestError:
            return frozenset()
        models = {model.name: model for model in self.router.models}
        return frozenset(name for name in candidates if _may_answer(request, models[name]))

    def _read(self, asked: Asked, candidates: Collection[str]) -> Request:
        check_single_calls(self.router)
        wanted = asked.own.get("allow")
        if wanted:  # a model's name stands for all its efforts
            named = frozenset(model.name for model in self.router.models if model.is_named_in(wanted))
            asked = replace(asked, own={**asked.own, "allow": wanted | named})
        return asked.request(candidates)

    def _failed(self, error: Exception) -> PassThrough:
        _log.error("eccos could not decide: %s", type(error).__name__, exc_info=error)
        return PassThrough(f"eccos could not decide it ({type(error).__name__})")


def check_single_calls(router: Router) -> None:
    """Raise `EscalationUnsupportedError` where the policy follows an answer with further calls.

    LiteLLM makes one call for a request. The first call of a plan alone would miss the floor that the plan keeps.
    """
    if router.parts.planner is not None:
        raise EscalationUnsupportedError(
            "policy.escalate is set, and LiteLLM takes one answer for a request: nobody would look at it and ask "
            "another model, so the policy would not hold. Leave escalate out of the file that LiteLLM's eccos reads "
            f"({CONFIG_VARIABLE} may name one of its own), or let LiteLLM call `eccos serve`, which follows plans."
        )


@dataclass(frozen=True, slots=True)
class OpenCall:
    """A decided request, whose outcome LiteLLM will report. `ends_at_s` is monotonic seconds."""

    bridge: Bridge
    call: OutsideCall
    ends_at_s: float


class OpenCalls:
    """The decided requests of this process, by decision. Safe to use from several threads.

    LiteLLM's callbacks are one list for the process, so this is too.
    """

    def __init__(self) -> None:
        self._calls: OrderedDict[str, OpenCall] = OrderedDict()
        self._changing = threading.Lock()

    def add(self, bridge: Bridge, call: OutsideCall) -> OutsideCall:
        """Remember a call. Those that LiteLLM never reported are given up, so that their slots are free again."""
        now_s = time.monotonic()
        wait_s = max(LONGEST_CALL_S, bridge.router.parts.answer_deadline_s)
        late: list[OutsideCall] = []
        with self._changing:
            self._calls[call.decision.id] = OpenCall(bridge, call, now_s + wait_s)
            while self._calls:
                oldest = next(iter(self._calls.values()))
                if len(self._calls) <= MOST_CALLS and oldest.ends_at_s > now_s:
                    break
                self._calls.popitem(last=False)
                late.append(oldest.call)
        for each in late:
            each.give_up()
        return call

    def find(self, metadata: Mapping[str, Any]) -> OpenCall | None:
        """Find the call of a request by LiteLLM's metadata."""
        signals = metadata.get("routing_plugin_signals")
        told = signals.get("eccos") if isinstance(signals, Mapping) else None
        named = metadata.get(DECISION_KEY) or (told.get("decision_id") if isinstance(told, Mapping) else None)
        with self._changing:
            return self._calls.get(named) if isinstance(named, str) else None


OPEN_CALLS = OpenCalls()


def _may_answer(request: Request, model: Model) -> bool:
    return find_exclusion(request, model, 0, frozenset()) is None


async def record_label(router: Router, decision_id: object, quality: object) -> None:
    """Label an earlier answer. Raises `RequestError` for values of a wrong kind, and as `Router.record` does."""
    if not isinstance(decision_id, str) or not decision_id:
        raise RequestError("decision_id must be the text that the answer's x-eccos-decision-id says")
    if isinstance(quality, bool) or not isinstance(quality, int | float):
        raise RequestError("quality must be a number in [0, 1]")
    await asyncio.to_thread(router.record, decision_id, float(quality))
