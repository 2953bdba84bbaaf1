"""The admin endpoints: list, create and revoke keys over HTTP, with an admin key."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from eccos_core.domain import Request
from eccos_core.errors import InputError, RequestError, did_you_mean
from eccos_core.io.optional import needs_extra
from eccos_core.server.answering import Handler, json_response
from eccos_core.server.errors import ApiError
from eccos_core.server.keys.describe import describe_key, describe_tenants
from eccos_core.server.keys.gate import KeyGate
from eccos_core.server.keys.key import KeyRules
from eccos_core.server.serving import Serving

with needs_extra("server", "eccos serve"):
    from starlette.requests import Request as HttpRequest
    from starlette.responses import Response

KEYS_PATH, BUDGETS_PATH = "/v1/eccos/keys", "/v1/eccos/budgets"
_LISTS = ("models", "policies")
_KINDS: Mapping[str, tuple[Any, str]] = {
    "name": (str, "a text"),
    "tenant": (str, "a text"),
    "usd_per_month": ((int, float), "a number"),
    "requests_per_minute": (int, "a whole number"),
    "tokens_per_minute": (int, "a whole number"),
    "is_admin": (bool, "true or false"),
}
FIELDS = (*_KINDS, "expires_at", *_LISTS)


def admin_endpoints(serving: Serving) -> list[tuple[str, str, Handler]]:
    """Return the method, path and handler of the endpoints that need an admin key. A server without keys has none.

    - `GET /v1/eccos/keys`: all keys, with what each has spent this month.
    - `POST /v1/eccos/keys`: make a key. Its secret is in this answer, and nowhere else.
    - `DELETE /v1/eccos/keys/ID`: revoke a key at once.
    - `GET /v1/eccos/budgets`: the accounts of the tenants.
    """
    keys = serving.gate
    if not isinstance(keys, KeyGate):
        return []

    async def list_keys(_: HttpRequest) -> Response:
        found, balances = await keys.run(keys.database.list_keys), await keys.balances()
        now = keys.database.now
        return json_response({"object": "list", "data": [describe_key(key, now, balances) for key in found]})

    async def create(http: HttpRequest) -> Response:
        rules = read_rules(await serving.read_json(http))
        check_names(rules, serving, keys.tenants)
        key, secret = await keys.run(keys.database.create, rules)
        return json_response({**describe_key(key, keys.database.now), "key": secret}, 201)

    async def revoke(http: HttpRequest) -> Response:
        key_id = str(http.path_params["key_id"])
        if await keys.run(keys.database.find, key_id) is None:
            raise ApiError("not_found", "no key has this id. GET /v1/eccos/keys lists them.", code="key_not_found")
        return json_response(describe_key(await keys.run(keys.database.revoke, key_id), keys.database.now))

    async def budgets(_: HttpRequest) -> Response:
        balances = await keys.balances()
        return json_response({"object": "list", "data": describe_tenants(keys.tenants, balances)})

    one = KEYS_PATH + "/{key_id}"
    return [
        ("GET", KEYS_PATH, for_admins(serving, list_keys)),
        ("POST", KEYS_PATH, for_admins(serving, create)),
        ("DELETE", one, for_admins(serving, revoke)),
        ("GET", BUDGETS_PATH, for_admins(serving, budgets)),
    ]


def for_admins(serving: Serving, handle: Handler) -> Handler:
    """Wrap a handler, so that only an admin key reaches it."""

    async def answer(http: HttpRequest) -> Response:
        caller = await serving.admit(http)
        if not caller.is_admin:
            raise ApiError("permission", f"the key {caller.key_id} is no admin key", code="admin_key_needed")
        return await handle(http)

    return answer


def read_rules(body: dict[str, Any]) -> KeyRules:
    """Read the rules of a new key. Raises `ApiError`."""
    for name in body:
        if name not in FIELDS:
            hint = did_you_mean(name, FIELDS) or "."
            raise _wrong(name, f"{name} is unknown{hint} There are: {', '.join(FIELDS)}")
    if not isinstance(body.get("name"), str):
        raise _wrong("name", "name must be a text: what the key is for")
    try:
        return KeyRules(**{name: _read_field(name, value) for name, value in body.items() if value is not None})
    except InputError as error:
        raise ApiError("invalid_request", str(error)) from None


def _read_field(name: str, value: Any) -> Any:
    if name in _LISTS:
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise _wrong(name, f"{name} must be a list of names")
        return frozenset(value)
    if name == "expires_at":
        return _read_time(value)
    kind, words = _KINDS[name]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise _wrong(name, f"{name} must be {words}")
    return value


def check_names(rules: KeyRules, serving: Serving, budgets: Collection[str] = ()) -> None:
    """Check that the router has the models and policies of a key, and the budgets its tenant. Raises `ApiError`."""
    models = {model.name for model in serving.router.models} | {model.deployment for model in serving.router.models}
    models |= set(serving.embeddings.names)
    try:
        serving.router.parts.tenants.policy_of(Request.of("any question", tenant=rules.tenant))
    except RequestError:
        told = f"the router has no tenant {rules.tenant!r}. Tenants stand under eccos.tenants in the configuration."
        raise _wrong("tenant", told) from None
    for field, asked, known in (
        ("models", rules.models or (), models),
        ("policies", rules.policies or (), set(serving.router.parts.policies)),
        ("tenant", [rules.tenant] if rules.tenant and budgets else (), set(budgets)),
    ):
        for name in asked:
            if name not in known:
                hint = did_you_mean(name, known) or "."
                raise _wrong(field, f"{field} has {name!r}{hint} There are: {', '.join(sorted(known))}")


def _read_time(value: object) -> float:
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        raise _wrong("expires_at", "expires_at must be a date such as 2027-01-31, or a time with it") from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _wrong(name: str, message: str) -> ApiError:
    return ApiError("invalid_request", message, param=name[:100])
