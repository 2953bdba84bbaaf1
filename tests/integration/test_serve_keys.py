"""Keys, budgets and rate limits over HTTP: a real server on loopback, a real database, and OpenAI's own client."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from serving_process import running_server
from waiting import wait_until

from eccos_core.domain import Capability, Model
from eccos_core.server.keys import Balance, KeyDatabase, KeyGate, KeyRules
from eccos_core.server.keys.build import has_own_policy, usd_of_models
from eccos_core.server.keys.gate import NearLimit
from eccos_core.testing import ScriptedBackend, scripted_router

POOL = tuple(
    Model(name, price, price, max_concurrency=8, max_output_tokens=100, capabilities=frozenset(Capability))
    for name, price in (("small", 1e-6), ("large", 2e-5))
)
QUESTION: list[Any] = [{"role": "user", "content": "hello there"}]
LARGE_USD = 100 * 2e-5  # at most of one answer of `large`, and a little for the question


@dataclass
class Served:
    """A running server with keys, and its database as another process sees it."""

    address: str
    database: KeyDatabase

    def client(self, secret: str) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.address}/v1", api_key=secret, max_retries=0)

    def key(self, **rules: Any) -> str:
        """Make a key. Returns its secret."""
        return self.database.create(KeyRules(**{"name": "test", **rules}))[1]

    def ask(self, secret: str, **fields: Any) -> Any:
        """Ask with a key. Returns the answer with its headers."""
        fields = {"model": "eccos:best", "messages": QUESTION, **fields}
        return self.client(secret).chat.completions.with_raw_response.create(**fields)

    def account(self, secret: str) -> Balance:
        """Return what a key has spent, when all of it is written and no room is set aside."""
        found: list[Balance] = []

        def is_settled() -> bool:
            found[:] = [each for each in self.database.balances() if each.name == secret.split("-")[2]]
            return bool(found) and found[0].reserved == 0

        wait_until(is_settled, timeout_s=20)
        return found[0]

    def http(self, method: str, path: str, secret: str, **given: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {secret}"}
        return httpx.request(method, self.address + path, headers=headers, timeout=30, **given)


@contextmanager
def serve(
    folder: Path, near_limit: NearLimit = "step_down", *, wrong_keys_per_minute: int = 30, **tenants: float
) -> Iterator[Served]:
    backend = ScriptedBackend({"small": ["small says hello"], "large": ["large says hello"]}, POOL)
    router = scripted_router(backend, POOL, {"": [0.8, 0.9]}, usd_per_quality=1e-6)
    path = folder / "keys.sqlite"
    gate = KeyGate(
        KeyDatabase(path),
        lambda request: usd_of_models(router, request),
        has_own_policy=lambda request: has_own_policy(router, request),
        near_limit=near_limit,
        tenants=tenants,
        wrong_keys_per_minute=wrong_keys_per_minute,
    )
    elsewhere = KeyDatabase(path)  # as `eccos keys` opens it, in another process
    with running_server(router, gate) as running:
        yield Served(running.address, elsewhere)
    gate.close()
    elsewhere.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve(tmp_path_factory.mktemp("keys"), search=100.0, poor=1e-6) as running:
        yield running


def test_a_key_is_taken_as_bearer_and_as_x_api_key(served: Served) -> None:
    secret = served.key()
    assert served.ask(secret).parse().choices[0].message.content == "large says hello"
    body = {"model": "eccos", "messages": QUESTION}
    other = {"x-api-key": secret, "authorization": "Bearer whatever"}
    assert httpx.post(f"{served.address}/v1/chat/completions", json=body, headers=other).status_code == 200


@pytest.mark.parametrize("wrong", ["none", "sk-eccos-000000000000-" + 43 * "x", "sk-eccos-" + 60 * "é"])
def test_a_wrong_key_gets_401(served: Served, wrong: str) -> None:
    answer = httpx.get(f"{served.address}/v1/models", headers=[(b"authorization", b"Bearer " + wrong.encode())])
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    if wrong.isascii():
        with pytest.raises(openai.AuthenticationError, match="not known here"):
            served.ask(wrong)


def test_no_key_gets_401_everywhere_but_for_health(served: Served) -> None:
    for path in ("/v1/models", "/v1/eccos/keys", "/v1/eccos/budgets"):
        assert httpx.get(served.address + path).status_code == 401, path
    assert httpx.post(f"{served.address}/v1/chat/completions", json={}).status_code == 401
    assert httpx.get(f"{served.address}/health").status_code == 200


def test_a_key_that_is_revoked_elsewhere_gets_401_at_once(served: Served) -> None:
    secret = served.key()
    served.ask(secret)
    served.database.revoke(secret.split("-")[2])
    with pytest.raises(openai.AuthenticationError, match="is revoked"):
        served.ask(secret)


def test_an_expired_key_gets_401_and_says_since_when(served: Served) -> None:
    secret = served.key(expires_at=1_764_000_000.0)
    with pytest.raises(openai.AuthenticationError, match="expired at 2025-11-24"):
        served.ask(secret)


def test_what_an_answer_costs_is_settled_exactly(served: Served) -> None:
    secret = served.key(tenant="search", usd_per_month=1.0)
    cost = sum(float(served.ask(secret).headers["x-eccos-cost-usd"]) for _ in range(3))
    for chunk in served.client(secret).chat.completions.create(model="eccos:best", messages=QUESTION, stream=True):
        cost += (chunk.model_extra or {}).get("eccos", {}).get("cost_usd", 0.0)
    account = served.account(secret)
    assert cost > 0
    assert account.spent == pytest.approx(cost * 1e9, abs=4)
    balances = {(each.scope, each.name): each for each in served.database.balances()}
    assert balances["tenant", "search"].spent >= account.spent


def test_near_the_limit_a_request_steps_down_to_a_model_that_can_be_paid(served: Served) -> None:
    secret = served.key(usd_per_month=LARGE_USD / 2)
    answer = served.ask(secret).parse()
    assert answer.choices[0].message.content == "small says hello"
    named = served.key(usd_per_month=LARGE_USD / 2)
    with pytest.raises(openai.APIStatusError) as refused:  # whoever names the dear model gets no other
        served.ask(named, model="large")
    assert refused.value.status_code == 402


def test_a_spent_budget_gets_402_with_what_is_left_and_when_it_resets(served: Served) -> None:
    secret = served.key(usd_per_month=1e-6)
    with pytest.raises(openai.APIStatusError, match=r"0\.000001 of 0\.000001 USD left.*resets at") as refused:
        served.ask(secret)
    assert refused.value.status_code == 402
    assert refused.value.code == "insufficient_quota"
    assert float(refused.value.response.headers["x-eccos-budget-left-usd"]) == pytest.approx(1e-6)
    assert refused.value.response.headers["x-eccos-budget-resets"].endswith("-01T00:00+00:00")


def test_the_budget_of_a_tenant_holds_for_a_key_without_one(served: Served) -> None:
    with pytest.raises(openai.APIStatusError, match="the budget of the tenant poor") as refused:
        served.ask(served.key(tenant="poor"))
    assert refused.value.status_code == 402


def test_with_refuse_nobody_steps_down(tmp_path: Path) -> None:
    with serve(tmp_path, "refuse") as running:
        with pytest.raises(openai.APIStatusError) as refused:
            running.ask(running.key(usd_per_month=LARGE_USD / 2))
        assert refused.value.status_code == 402


def test_concurrent_requests_do_not_pass_the_budget(served: Served) -> None:
    secret = served.key(usd_per_month=LARGE_USD * 3.5)
    codes: list[int] = []

    def ask() -> None:
        body = {"model": "large", "messages": QUESTION}
        codes.append(served.http("POST", "/v1/chat/completions", secret, json=body).status_code)

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert set(codes) <= {200, 402}
    assert served.account(secret).spent <= LARGE_USD * 3.5e9


def test_over_the_rate_limit_a_key_gets_429_and_when_to_come_back(served: Served) -> None:
    secret = served.key(requests_per_minute=2)
    served.ask(secret)
    served.ask(secret)
    with pytest.raises(openai.RateLimitError, match="2 requests a minute") as refused:
        served.ask(secret)
    assert 25 <= int(refused.value.response.headers["retry-after"]) <= 30
    served.ask(served.key(requests_per_minute=2))  # another key has a limit of its own


def test_over_the_token_limit_a_key_gets_429_and_a_request_that_never_fits_413(served: Served) -> None:
    secret = served.key(tokens_per_minute=20)
    served.ask(secret)
    with pytest.raises(openai.RateLimitError, match="20 tokens a minute"):
        served.ask(secret, messages=[{"role": "user", "content": "one two three four five six seven eight nine ten"}])
    with pytest.raises(openai.APIStatusError, match="Send less") as refused:
        served.ask(secret, messages=[{"role": "user", "content": "word " * 100}])
    assert refused.value.status_code == 413


def test_a_key_may_use_only_its_models_and_policies(served: Served) -> None:
    secret = served.key(models=frozenset({"small"}), policies=frozenset({"cheap", "best"}))
    assert served.ask(secret).parse().model == "small"
    with pytest.raises(openai.PermissionDeniedError, match="may use small"):
        served.ask(secret, model="large")
    cheap = served.key(policies=frozenset({"cheap"}))
    with pytest.raises(openai.PermissionDeniedError, match="the policies cheap"):
        served.ask(cheap)
    assert served.ask(cheap, model="eccos:cheap").parse().model == "small"


def test_admin_endpoints_need_an_admin_key(served: Served) -> None:
    plain, admin = served.key(), served.key(is_admin=True)
    for method, path in (
        ("GET", "/v1/eccos/keys"),
        ("POST", "/v1/eccos/keys"),
        ("DELETE", "/v1/eccos/keys/1"),
        ("GET", "/v1/eccos/budgets"),
    ):
        refused = served.http(method, path, plain)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "admin_key_needed"), path
    assert served.http("GET", "/v1/eccos/keys", admin).status_code == 200


def test_an_admin_makes_lists_and_revokes_a_key_over_http(served: Served) -> None:
    admin = served.key(is_admin=True)
    rules = {"name": "new", "tenant": "search", "usd_per_month": 5, "models": ["small"], "expires_at": "2999-01-31"}
    made = served.http("POST", "/v1/eccos/keys", admin, json=rules)
    assert made.status_code == 201
    told = made.json()
    assert served.ask(told["key"], model="eccos").parse().model == "small"
    listed = served.http("GET", "/v1/eccos/keys", admin)
    mine = next(each for each in listed.json()["data"] if each["id"] == told["id"])
    assert (mine["status"], mine["expires_at"], mine["reserved_usd"]) == ("active", "2999-01-31T00:00:00+00:00", 0)
    assert mine["spent_usd"] > 0
    assert mine["spent_usd"] == pytest.approx(5 - mine["left_usd"])
    assert told["key"] not in listed.text
    assert served.http("DELETE", f"/v1/eccos/keys/{told['id']}", admin).json()["status"] == "revoked"
    with pytest.raises(openai.AuthenticationError):
        served.ask(told["key"])
    assert served.http("DELETE", "/v1/eccos/keys/none", admin).status_code == 404
    tenants = served.http("GET", "/v1/eccos/budgets", admin).json()["data"]
    assert [(each["tenant"], each["usd_per_month"]) for each in tenants] == [("poor", 1e-6), ("search", 100.0)]


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ({}, "name must be a text"),
        ({"name": "a", "budget": 1}, "budget is unknown"),
        ({"name": "a", "usd_per_month": "5"}, "usd_per_month must be a number"),
        ({"name": "a", "usd_per_month": -1}, "usd_per_month is -1"),
        ({"name": "a", "requests_per_minute": 1.5}, "must be a whole number"),
        ({"name": "a", "requests_per_minute": True}, "must be a whole number"),
        ({"name": "a", "models": ["larg"]}, "did you mean 'large'"),
        ({"name": "a", "models": []}, "models is empty"),
        ({"name": "a", "policies": "cheap"}, "must be a list of names"),
        ({"name": "a", "tenant": "serch"}, "did you mean 'search'"),
        ({"name": "a\nb"}, "name must be 1 to 80"),
        ({"name": "a", "expires_at": "soon"}, "must be a date such as"),
        ({"name": "a", "is_admin": "yes"}, "must be true or false"),
    ],
)
def test_wrong_rules_of_a_key_get_400_and_the_way_out(served: Served, rules: dict[str, Any], told: str) -> None:
    answer = served.http("POST", "/v1/eccos/keys", served.key(is_admin=True), json=rules)
    assert answer.status_code == 400
    assert told in answer.json()["error"]["message"]


def test_no_key_and_no_hash_is_in_a_log_an_error_or_a_listing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    from eccos_core.server.keys.key import hash_key

    caplog.set_level(logging.DEBUG)
    with serve(tmp_path, "refuse") as running:
        admin, spent = running.key(is_admin=True), running.key(usd_per_month=0.0)
        limited, revoked = running.key(requests_per_minute=1), running.key()
        running.database.revoke(revoked.split("-")[2])
        wrong = limited[:-4] + "abcd"
        secrets = [admin, spent, limited, revoked, wrong]
        said = []
        for secret in secrets:
            for _ in range(2):
                for method, path in (
                    ("GET", "/v1/models"),
                    ("GET", "/v1/eccos/keys"),
                    ("GET", "/metrics"),
                    ("GET", f"/{secret}"),
                ):
                    answer = running.http(method, path, secret)
                    said.append(answer.text + str(answer.headers) if secret not in path else "")
                body = {"model": "eccos", "messages": QUESTION}
                answer = running.http("POST", "/v1/chat/completions", secret, json=body)
                said.append(answer.text + str(answer.headers))
        made = running.http("POST", "/v1/eccos/keys", admin, json={"name": "new"}).json()["key"]
        secrets.append(made)
        said.append(running.http("GET", "/v1/eccos/keys", admin).text)
    said += [record.getMessage() + str(record.exc_info) for record in caplog.records if record.name.startswith("eccos")]
    said += list(capfd.readouterr())
    everything = "\n".join(said)
    assert "requests a minute" in everything, "the test has heard nothing"
    for secret in secrets:
        assert secret[-43:] not in everything
        assert hash_key(secret) not in everything


def test_a_database_that_fails_lets_nobody_in_and_says_nothing_of_itself(tmp_path: Path) -> None:
    with serve(tmp_path) as running:
        secret = running.key()
        with running.database._engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE eccos_keys RENAME TO gone")
        answer = running.http("GET", "/v1/models", secret)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "eccos_keys" not in answer.text


def test_a_key_labels_the_answers_of_its_own_tenant_only(served: Served) -> None:
    mine, theirs, boss = served.key(tenant="search"), served.key(), served.key(is_admin=True)
    decision_id = served.ask(mine).headers["x-eccos-decision-id"]
    label = {"decision_id": decision_id, "quality": 0.5}
    refused = served.http("POST", "/v1/eccos/feedback", theirs, json=label)
    assert refused.status_code == 404
    assert "unknown decision" in refused.json()["error"]["message"]
    for secret in (mine, boss):
        assert served.http("POST", "/v1/eccos/feedback", secret, json=label).status_code == 200


def test_many_wrong_keys_of_one_address_get_429_and_disturb_nobody_else(tmp_path: Path) -> None:
    with serve(tmp_path, wrong_keys_per_minute=3) as running:
        wrong, right = "sk-eccos-000000000000-" + 43 * "x", running.key()

        def ask(secret: str, address: str = "192.0.2.1") -> httpx.Response:
            headers = {"authorization": f"Bearer {secret}", "x-forwarded-for": address}
            return httpx.get(f"{running.address}/v1/models", headers=headers)

        assert [ask(wrong).status_code for _ in range(6)] == [401] * 3 + [429] * 3
        told = ask(wrong)
        assert 1 <= int(told.headers["retry-after"]) <= 20
        assert told.json()["error"]["code"] == "too_many_wrong_keys"
        anthropic = httpx.post(
            f"{running.address}/v1/messages", headers={"x-api-key": wrong, "x-forwarded-for": "192.0.2.1"}, json={}
        )
        assert (anthropic.status_code, anthropic.json()["error"]["type"]) == (429, "rate_limit_error")
        assert ask(right).status_code == 200, "a right key of the same address passes"
        assert ask(wrong, "192.0.2.2").status_code == 401, "another address has a limit of its own"
        no_key = httpx.get(f"{running.address}/v1/models", headers={"x-forwarded-for": "192.0.2.1"})
        assert no_key.status_code == 401
