"""The gate of a server with keys: who calls, how often, with which models, and for how much money."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal, NoReturn, TypeAlias, TypeVar

from eccos_core.domain import Request
from eccos_core.io.optional import needs_extra
from eccos_core.io.tokens import count_tokens
from eccos_core.server.errors import ApiError
from eccos_core.server.gate import Caller, Spending
from eccos_core.server.keys.allowances import Allowances, Hold
from eccos_core.server.keys.database import KeyDatabase, RateExceeded
from eccos_core.server.keys.key import PREFIX, VirtualKey
from eccos_core.server.keys.ledger import Balance, Reservation, Shortfall
from eccos_core.server.keys.money import limit_nano, next_month, to_nano, to_usd
from eccos_core.server.keys.rates import WINDOW_S
from eccos_core.server.keys.tables import POSTGRES_CONNECTIONS
from eccos_core.server.keys.wrong_keys import WrongKeyLimit

with needs_extra("server", "the database of keys"):
    from sqlalchemy.exc import SQLAlchemyError

NearLimit: TypeAlias = Literal["step_down", "refuse"]
CHEAP = "cheap"
WRONG_KEYS_PER_MINUTE = 30
BATCH_WINDOW_S = WINDOW_S / 2  # of a minute's rate that a batch may use at once
LONGEST_PACE_S = 5.0  # between looks whether a batch may go on, as its key may have been revoked
_TRIES = 3  # of a cheaper reservation, while others spend the same budget
_Result = TypeVar("_Result")
_log = logging.getLogger("eccos.server")


@dataclass(frozen=True, slots=True)
class KeyCaller(Caller):
    """The caller of one request, with its key as it was read and checked when the request came."""

    key: VirtualKey | None = None


class KeyGate:
    """The `Gate` of a server with virtual keys.

    - `database` keeps keys and budgets. The gate starts it. `close` ends it.
    - `usd_of_models(request)`: the most that a request may cost with each model, in USD.
    - `has_own_policy(request)`: whether the tenant has a policy of its own, which `step_down` must not replace.
    - `near_limit`: what happens to a request that the budget has no money for. `step_down` asks only models that it
      can still pay, under the policy `cheap`. `refuse` answers 402.
    - `tenants`: budgets of tenants, in USD a month.
    - `wrong_keys_per_minute`: how many wrong keys one address may send before it gets 429.

    The database is asked in threads, so that no other request waits for the disk. Two things need no thread: the row
    of a key in a SQLite file, which takes 50 microseconds, and money that `Allowances` have set aside already.
    """

    has_keys = True

    def __init__(
        self,
        database: KeyDatabase,
        usd_of_models: Callable[[Request], Mapping[str, float]],
        *,
        has_own_policy: Callable[[Request], bool] = lambda _: False,
        near_limit: NearLimit = "step_down",
        tenants: Mapping[str, float | None] | None = None,
        wrong_keys_per_minute: int = WRONG_KEYS_PER_MINUTE,
    ) -> None:
        self.database = database
        self.near_limit = near_limit
        self.tenants = dict(tenants or {})
        self._wrong_keys = WrongKeyLimit(wrong_keys_per_minute)
        self._usd_of_models, self._has_own_policy = usd_of_models, has_own_policy
        threads = 1 if database.is_local_file else POSTGRES_CONNECTIONS
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="eccos-keys")
        database.start()
        self.allowances = Allowances(database)
        self.allowances.start()

    async def admit(self, headers: Mapping[str, str]) -> Caller:
        """See `Gate`."""
        secret = read_secret(headers)
        if self.database.is_local_file:
            with _as_api_error():
                key = self._check(secret)
        else:
            key = await self.run(self._check, secret)
        if key.rules.requests_per_minute is not None:
            exceeded = await self.run(self.database.take_request, key)
            if exceeded is not None:
                raise _too_often(key, exceeded)
        return KeyCaller(key.id, key.rules.tenant, key.rules.is_admin, key=key)

    async def reserve(self, caller: Caller, request: Request, usd_at_most: float) -> tuple[Request, Spending]:
        """See `Gate`."""
        found = self._take_at_once(caller, request, usd_at_most)
        return await self.run(self._reserve, caller, request, usd_at_most) if found is None else found

    async def reserve_tokens(self, caller: Caller, model: str, tokens: int, usd_at_most: float) -> Spending:
        """See `Gate`."""
        return await self.run(self._reserve_tokens, caller, model, tokens, usd_at_most)

    async def reserve_batch(self, caller: Caller, batch_id: str, usd_at_most: float) -> Spending:
        """See `Gate`."""
        return await self.run(self._reserve_batch, caller, batch_id, usd_at_most)

    async def narrow(self, caller: Caller, requests: Sequence[Request]) -> list[Request | ApiError]:
        """See `Gate`."""
        return await self.run(self._narrow, caller, requests)

    async def pace(self, caller: Caller, tokens: int) -> None:
        """See `Gate`. Batches use half of what may pass at once, so that other requests of the key pass before them."""
        for take in (self._take_request_of_batch, self._take_tokens_of_batch):
            while (exceeded := await self.run(take, caller, tokens)) is not None:  # noqa: ASYNC110 - the database says when
                await asyncio.sleep(min(exceeded.retry_after_s, LONGEST_PACE_S))

    def count_wrong_key(self, headers: Mapping[str, str], address: str) -> None:
        """See `Gate`."""
        self._wrong_keys.count(headers, address)

    def follow(self, near_limit: NearLimit, tenants: Mapping[str, float | None], wrong_keys_per_minute: int) -> None:
        """Put other rules into use for the requests that come from now on. What was spent stays as it is."""
        self.near_limit, self.tenants = near_limit, dict(tenants)
        self.allowances.outdate()
        self._wrong_keys.per_minute = wrong_keys_per_minute

    async def run(self, work: Callable[..., _Result], *given: object) -> _Result:
        """Do something with the database in a thread. Once begun it is done, even if the caller has left.

        Raises `ApiError` 503 while the database cannot be reached: no request passes without its check.
        """
        running = asyncio.get_running_loop().run_in_executor(self._threads, work, *given)
        with _as_api_error():
            return await asyncio.shield(running)

    async def balances(self) -> list[Balance]:
        """Return the accounts of this month, with all that this process knows."""
        return await self.run(self._balances)

    def close(self) -> None:
        """Finish what was begun, and end the connections."""
        self._threads.shutdown()
        self.allowances.close()
        self.database.close()

    # ------------------------------------------------------------------------- in a thread

    def _check(self, secret: str) -> VirtualKey:
        key = self.database.check(secret)
        if key is None:
            raise ApiError("authentication", "this API key is not known here", code="invalid_api_key")
        self._check_valid(key)
        return key

    def _balances(self) -> list[Balance]:
        self.allowances.write(release=True)
        return self.database.balances()

    def _check_valid(self, key: VirtualKey) -> None:
        if key.revoked_at is not None:
            raise ApiError("authentication", f"the key {key.id} is revoked", code="invalid_api_key")
        expires_at = key.rules.expires_at
        if expires_at is not None and expires_at <= self.database.now:
            when = datetime.fromtimestamp(expires_at, UTC).isoformat(timespec="seconds")
            raise ApiError("authentication", f"the key {key.id} expired at {when}", code="invalid_api_key")

    def _key_of(self, caller: Caller) -> VirtualKey:
        if isinstance(caller, KeyCaller) and caller.key is not None:
            return caller.key
        key = self.database.find(caller.key_id)
        if key is None:
            raise ApiError("authentication", "this API key is not known here", code="invalid_api_key")
        self._check_valid(key)
        return key

    def _limits_of(self, key: VirtualKey) -> dict[str, int | None]:
        budgets = {"key": key.rules.usd_per_month, "tenant": self.tenants.get(key.rules.tenant or "")}
        return {scope: limit_nano(usd) for scope, usd in budgets.items()}

    def _take_at_once(self, caller: Caller, request: Request, usd_at_most: float) -> tuple[Request, Spending] | None:
        """Do as `_reserve` where nothing needs the database. Runs on the event loop."""
        key = caller.key if isinstance(caller, KeyCaller) else None
        if key is None or (key.rules.tokens_per_minute is not None and not caller.is_paced):
            return None
        request = narrow(request, key)
        hold = self.allowances.take(key, to_nano(usd_at_most))
        return None if hold is None else (request, KeySpending(self, key, hold))

    def _reserve(self, caller: Caller, request: Request, usd_at_most: float) -> tuple[Request, Spending]:
        key = self._key_of(caller)
        request = narrow(request, key)
        if not caller.is_paced and key.rules.tokens_per_minute is not None:
            self._take_tokens(key, count_tokens(request.messages))
        limits = self._limits_of(key)
        found = self.allowances.reserve(key, to_nano(usd_at_most), limits)
        if isinstance(found, Shortfall) and self.near_limit == "step_down" and not self._has_own_policy(request):
            request, found = self._step_down(key, request, found, limits)
        if isinstance(found, Shortfall):
            self._refuse(key, found, usd_at_most)
        return request, KeySpending(self, key, found)

    def _reserve_tokens(self, caller: Caller, model: str, tokens: int, usd_at_most: float) -> Spending:
        key = self._key_of(caller)
        if key.rules.models is not None and model not in key.rules.models:
            told = f"the key {key.id} may use {', '.join(sorted(key.rules.models))}"
            raise ApiError("permission", told, param="model")
        self._take_tokens(key, tokens)
        found = self.allowances.reserve(key, to_nano(usd_at_most), self._limits_of(key))
        if isinstance(found, Shortfall):
            self._refuse(key, found, usd_at_most)
        return KeySpending(self, key, found)

    def _reserve_batch(self, caller: Caller, batch_id: str, usd_at_most: float) -> Spending:
        key = self._key_of(caller)
        nano, limits = to_nano(usd_at_most), self._limits_of(key)
        found = self.database.reserve(key, nano, limits, batch_id)
        if isinstance(found, Shortfall):
            self.allowances.write(release=True)
            found = self.database.reserve(key, nano, limits, batch_id)
        if isinstance(found, Shortfall):
            self._refuse(key, found, usd_at_most)
        return BatchSpending(self, key, found)

    def _narrow(self, caller: Caller, requests: Sequence[Request]) -> list[Request | ApiError]:
        key = self._key_of(caller)
        narrowed: list[Request | ApiError] = []
        for request in requests:
            try:
                narrowed.append(narrow(request, key))
            except ApiError as error:
                narrowed.append(error)
        return narrowed

    def _take_request_of_batch(self, caller: Caller, _: int) -> RateExceeded | None:
        return self.database.take_request(self._key_of(caller), BATCH_WINDOW_S)

    def _take_tokens_of_batch(self, caller: Caller, tokens: int) -> RateExceeded | None:
        key = self._key_of(caller)
        self._check_fits(key, tokens)
        return self.database.take_tokens(key, tokens, BATCH_WINDOW_S)

    def _take_tokens(self, key: VirtualKey, tokens: int) -> None:
        self._check_fits(key, tokens)
        exceeded = self.database.take_tokens(key, tokens)
        if exceeded is not None:
            raise _too_often(key, exceeded)

    def _check_fits(self, key: VirtualKey, tokens: int) -> None:
        most = key.rules.tokens_per_minute
        if most is not None and tokens > most:
            told = (
                f"the request has about {tokens:,} tokens, and the key {key.id} may use {most:,} a minute. Send less."
            )
            raise ApiError("too_large", told, code="rate_limit_exceeded")

    def _step_down(
        self, key: VirtualKey, request: Request, short: Shortfall, limits: Mapping[str, int | None]
    ) -> tuple[Request, Hold | Shortfall]:
        """Ask only models that the money left can pay, under the policy `cheap`."""
        costs = {name: to_nano(usd) for name, usd in self._usd_of_models(request).items()}
        for _ in range(_TRIES):
            fitting = {name: nano for name, nano in costs.items() if nano <= short.left}
            if not fitting:
                break
            found = self.allowances.reserve(key, max(fitting.values()), limits)
            if isinstance(found, Hold):
                return replace(request, policy=CHEAP, allow=frozenset(fitting)), found
            short = found
        return request, short

    def _refuse(self, key: VirtualKey, short: Shortfall, usd_at_most: float) -> NoReturn:
        resets = next_month(self.database.now).isoformat(timespec="minutes")
        whose = f"key {key.id}" if short.scope == "key" else f"tenant {short.name}"
        raise ApiError(
            "budget",
            f"the budget of the {whose} has {to_usd(short.left):.6f} of {to_usd(short.limit):.6f} USD left for this "
            f"month, and the request may cost {usd_at_most:.6f} USD. The budget resets at {resets}.",
            code="insufficient_quota",
            headers={"x-eccos-budget-left-usd": f"{to_usd(short.left):.9f}", "x-eccos-budget-resets": resets},
        )


class KeySpending:
    """The `Spending` of one call of a key."""

    def __init__(self, gate: KeyGate, key: VirtualKey, hold: Hold) -> None:
        self._gate, self._key, self._hold = gate, key, hold

    async def settle(self, cost_usd: float | None, tokens: int = 0) -> None:
        """See `Spending`. Only memory changes, unless the tokens count or the call cost more than was set aside."""
        if self._hold.is_settled:
            return
        gate, key = self._gate, self._key
        is_short = gate.allowances.settle(self._hold, _nano_of(cost_usd, self._hold.nano))
        if is_short or key.rules.tokens_per_minute is not None:
            try:
                await gate.run(self._write, is_short, tokens)
            except ApiError:  # the caller has an answer, which must not be lost. The cost is written later
                _log.error("the use of the key %s could not be written", key.id)

    def _write(self, is_short: bool, tokens: int) -> None:
        if is_short:
            self._gate.allowances.write(release=True)
        self._gate.database.charge_tokens(self._key, tokens)


class BatchSpending:
    """The `Spending` of a batch, whose reservation outlives the process."""

    def __init__(self, gate: KeyGate, key: VirtualKey, reservation: Reservation) -> None:
        self._gate, self._key, self._reservation = gate, key, reservation
        self._settled = False

    async def settle(self, cost_usd: float | None, tokens: int = 0) -> None:
        """See `Spending`."""
        if self._settled:
            return
        self._settled = True
        try:
            await self._gate.run(self._settle, cost_usd, tokens)
        except ApiError:
            # the caller has an answer, which must not be lost. The money stays reserved, which is never too little.
            _log.error("a cost of the key %s could not be settled, so its reservation stays", self._key.id)

    def _settle(self, cost_usd: float | None, tokens: int) -> None:
        self._gate.database.settle(self._reservation, _nano_of(cost_usd, self._reservation.nano))
        self._gate.database.charge_tokens(self._key, tokens)


def _nano_of(cost_usd: float | None, reserved: int) -> int:
    return reserved if cost_usd is None else to_nano(cost_usd)


@contextmanager
def _as_api_error() -> Iterator[None]:
    """Raise `ApiError` 503 for a database that cannot be reached."""
    try:
        yield
    except SQLAlchemyError as error:
        _log.error("the database of keys failed: %s", type(error).__name__)
        told = "the server cannot reach its database of keys. Try again."
        raise ApiError("overloaded", told, headers={"retry-after": "1"}) from None


def read_secret(headers: Mapping[str, str]) -> str:
    """Return the key of `Authorization: Bearer` or `x-api-key`. Raises `ApiError` where there is none.

    With two of them, the one that begins as a key of eccos counts. Some clients fill the other with anything.
    """
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    given = [bearer.strip() if scheme.lower() == "bearer" else "", headers.get("x-api-key", "").strip()]
    found = [each for each in given if each.startswith(PREFIX)] or [each for each in given if each]
    if not found:
        told = "no API key was given. Send it as `Authorization: Bearer sk-eccos-...` or `x-api-key: sk-eccos-...`."
        raise ApiError("authentication", told, code="invalid_api_key")
    return found[0]


def narrow(request: Request, key: VirtualKey) -> Request:
    """Return the request with the models that its key may use. Raises `ApiError` 403 when none is left.

    A deployment such as `large` stands for its efforts (`large@low`), on both sides.
    """
    rules = key.rules
    if rules.policies is not None and request.policy is not None and request.policy not in rules.policies:
        known = ", ".join(sorted(rules.policies))
        raise ApiError("permission", f"the key {key.id} may ask for the policies {known}", param="model")
    if rules.models is None:
        return request
    asked = rules.models if request.allow is None else request.allow
    allowed = frozenset(name for name in asked if name in rules.models or _deployment(name) in rules.models)
    allowed |= {name for name in rules.models if _deployment(name) in asked}
    if not allowed:
        raise ApiError("permission", f"the key {key.id} may use {', '.join(sorted(rules.models))}", param="model")
    return request if request.allow == allowed else replace(request, allow=allowed)


def _deployment(name: str) -> str:
    return name.partition("@")[0]


def _too_often(key: VirtualKey, exceeded: RateExceeded) -> ApiError:
    wait_s = max(1, -int(-exceeded.retry_after_s // 1))
    told = f"the key {key.id} may use {exceeded.per_minute:,} {exceeded.kind} a minute. Try again in {wait_s} s."
    return ApiError("rate_limit", told, code="rate_limit_exceeded", headers={"retry-after": str(wait_s)})
