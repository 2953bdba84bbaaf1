"""Virtual keys without a server: secrets, headers, money, months, rules, and what the configuration says."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from eccos_core.config import Config, TenantConfig, load_config
from eccos_core.domain import Model, Request
from eccos_core.errors import ConfigError, InputError, MissingDependencyError
from eccos_core.routing.tenants import Tenants
from eccos_core.server.admin import check_names
from eccos_core.server.errors import ApiError
from eccos_core.server.gate import OpenGate
from eccos_core.server.keys import KeyGate, KeyRules, VirtualKey
from eccos_core.server.keys.build import find_database, open_gate, usd_of_models, with_options
from eccos_core.server.keys.gate import narrow, read_secret
from eccos_core.server.keys.key import hash_key, id_of, make_key, matches
from eccos_core.server.keys.money import limit_nano, month_of, next_month, to_nano, to_usd
from eccos_core.server.keys.tables import open_engine, read_address
from eccos_core.server.serving import Serving
from eccos_core.server.settings import ServerSettings
from eccos_core.testing import ScriptedBackend, scripted_router

SECRET = "sk-eccos-0123456789ab-" + 43 * "s"
POOL = (Model("small", 1e-6, 1e-6, max_output_tokens=100), Model("large", 2e-5, 2e-5, max_output_tokens=100))


def load(folder: Path, server: Any, **environment: str) -> Config:
    document = {
        "model_list": [
            {"model_name": "m", "litellm_params": {"model": "eccos-local/pocket-small"}, "model_info": {"free": True}}
        ],
        "eccos": {"server": server},
    }
    path = folder / "eccos.yaml"
    path.write_text(yaml.safe_dump(document))
    return load_config(path, environment=environment)


def test_a_secret_has_256_random_bits_and_tells_its_id() -> None:
    made = [make_key() for _ in range(100)]
    assert len({secret for _, secret in made}) == 100
    for key_id, secret in made:
        assert secret.startswith(f"sk-eccos-{key_id}-")
        assert id_of(secret) == key_id
        assert len(secret.removeprefix(f"sk-eccos-{key_id}-")) == 43  # 43 characters of 6 bits: 256 bits


def test_a_secret_matches_its_own_hash_and_no_other() -> None:
    assert matches(SECRET, hash_key(SECRET))
    assert not matches(SECRET, hash_key(SECRET + "x"))
    assert not matches(SECRET, None)
    assert SECRET not in hash_key(SECRET)


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({"authorization": f"Bearer {SECRET}"}, SECRET),
        ({"authorization": f"bearer  {SECRET} "}, SECRET),
        ({"x-api-key": SECRET}, SECRET),
        ({"authorization": "Bearer unused", "x-api-key": SECRET}, SECRET),
        ({"authorization": f"Bearer {SECRET}", "x-api-key": "unused"}, SECRET),
        ({"authorization": "Bearer other"}, "other"),
    ],
)
def test_the_secret_is_read_from_either_header(headers: dict[str, str], found: str) -> None:
    assert read_secret(headers) == found


@pytest.mark.parametrize(
    "headers", [{}, {"authorization": SECRET}, {"authorization": "Basic eDp5"}, {"x-api-key": " "}]
)
def test_no_secret_is_an_error_that_says_how_to_send_one(headers: dict[str, str]) -> None:
    with pytest.raises(ApiError, match="Authorization: Bearer") as raised:
        read_secret(headers)
    assert raised.value.status == 401


@pytest.mark.parametrize(("usd", "nano"), [(0.0, 0), (1.0, 10**9), (1e-9, 1), (1e-10, 1), (0.1, 10**8), (2.5e-6, 2500)])
def test_a_cost_is_rounded_up_to_nano_dollars(usd: float, nano: int) -> None:
    assert to_nano(usd) == nano


def test_a_budget_is_rounded_down_and_a_cost_must_be_a_cost() -> None:
    assert limit_nano(1.0000000019) == 10**9 + 1
    assert limit_nano(None) is None
    assert to_usd(1500) == 1.5e-6
    for wrong in (float("nan"), float("inf"), -1e-9):
        with pytest.raises(ValueError, match="is no cost"):
            to_nano(wrong)


def test_a_month_is_that_of_utc_and_december_ends_in_january() -> None:
    last = datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()
    assert month_of(last) == "2026-12"
    assert next_month(last) == datetime(2027, 1, 1, tzinfo=UTC)
    assert next_month(datetime(2026, 11, 1, tzinfo=UTC).timestamp()) == datetime(2026, 12, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ({"name": ""}, "name must be"),
        ({"name": "a", "tenant": "\x1b[31m"}, "tenant must be"),
        ({"name": "a", "usd_per_month": float("nan")}, "usd_per_month is nan"),
        ({"name": "a", "usd_per_month": -0.5}, "usd_per_month is -0.5"),
        ({"name": "a", "tokens_per_minute": 0}, "tokens_per_minute is 0, must be from 1"),
        ({"name": "a", "models": frozenset()}, "models is empty"),
    ],
)
def test_wrong_rules_are_named(rules: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        KeyRules(**rules)


def test_a_key_narrows_the_models_and_a_deployment_stands_for_its_efforts() -> None:
    key = VirtualKey("1", KeyRules("a", models=frozenset({"small", "large@low"})), 0.0)
    request = Request.of("hello")
    assert narrow(request, key).allow == {"small", "large@low"}
    assert narrow(Request.of("hello", allow=frozenset({"large", "other"})), key).allow == {"large@low"}
    whole = VirtualKey("1", KeyRules("a", models=frozenset({"large"})), 0.0)
    assert narrow(Request.of("hello", allow=frozenset({"large@high"})), whole).allow == {"large@high"}
    with pytest.raises(ApiError, match="the key 1 may use large@low, small") as raised:
        narrow(Request.of("hello", allow=frozenset({"other"})), key)
    assert raised.value.status == 403


def test_the_cost_of_a_request_counts_only_models_that_may_answer_it() -> None:
    with scripted_router(ScriptedBackend({"small": ["a"], "large": ["b"]}, POOL), POOL, {"": [0.8, 0.9]}) as router:
        costs = usd_of_models(router, Request.of("hello"))
        assert set(costs) == {"small", "large"}
        assert costs["large"] == pytest.approx(20 * costs["small"])
        assert costs["small"] > 100e-6
        assert set(usd_of_models(router, Request.of("hello", deny=frozenset({"large"})))) == {"small"}
        image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a.example/b.png"}}]}]
        assert usd_of_models(router, Request.of(image)) == {}


# ----------------------------------------------------------------------------- the configuration


def test_the_section_server_has_safe_defaults(tmp_path: Path) -> None:
    server = load(tmp_path, {}).server
    assert (server.host, server.port, server.max_body_mb, server.cors_origins) == ("127.0.0.1", 8484, 20.0, ())
    assert server.keys is None


def test_the_section_keys_says_where_and_how_much(tmp_path: Path) -> None:
    written = {
        "keys": {"database": "here/k.sqlite", "near_limit": "refuse", "tenants": {"a": {"usd_per_month": 2}, "b": {}}}
    }
    keys = load(tmp_path, written).server.keys
    assert keys is not None
    assert keys.database.get_secret_value() == str(tmp_path.resolve() / "here" / "k.sqlite")
    assert (keys.near_limit, keys.budgets()) == ("refuse", {"a": 2.0, "b": None})


def test_an_address_with_a_password_comes_from_the_environment_and_is_never_shown(tmp_path: Path) -> None:
    address = "postgres://eccos:hidden-word@db.example/eccos"
    config = load(tmp_path, {"keys": {"database": "os.environ/KEYS_URL"}}, KEYS_URL=address)
    assert config.server.keys is not None
    assert config.server.keys.database.get_secret_value() == address.replace("postgres:", "postgresql:")
    assert "hidden-word" not in repr(config) + repr(read_address(config.server.keys.database.get_secret_value()))


@pytest.mark.parametrize(
    ("server", "told"),
    [
        ({"keys": {"database": "postgresql://eccos:hidden-word@db.example/eccos"}}, "holds a password"),
        ({"keys": {"database": "mysql://db.example/eccos"}}, "a file for SQLite, or postgresql://"),
        ({"keys": {"database": "os.environ/NOT_SET"}}, "NOT_SET is not set"),
        ({"keys": {"near_limit": "stepdown"}}, "did you mean 'step_down'"),
        ({"keys": {"tenants": {"a": {"usd_per_month": -1}}}}, "must be a number >= 0"),
        ({"port": 70000}, "between 0 and 65535"),
        ({"cors_origins": ["*"]}, "must be web addresses"),
        ({"hosts": "x"}, "did you mean 'host'"),
    ],
)
def test_what_is_wrong_in_the_section_is_named_without_a_secret(tmp_path: Path, server: Any, told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, server)
    assert told in str(raised.value)
    assert "hidden-word" not in str(raised.value)


def test_options_of_the_command_win_over_the_file(tmp_path: Path) -> None:
    server = load(tmp_path, {"keys": {"near_limit": "refuse", "tenants": {"a": {"usd_per_month": 2}}}}).server
    assert with_options(server, None, None) is server
    changed = with_options(server, "/elsewhere.sqlite", "step_down").keys
    assert changed is not None
    assert changed.database.get_secret_value() == "/elsewhere.sqlite"
    assert (changed.near_limit, changed.budgets()) == ("step_down", {"a": 2.0})


def test_without_a_section_the_keys_are_beside_the_file(tmp_path: Path) -> None:
    config = load(tmp_path, {})
    assert find_database(config.path, config.server) == tmp_path.resolve() / ".eccos" / "keys.sqlite"


def test_a_server_is_open_until_the_first_key_exists_and_never_again(tmp_path: Path) -> None:
    from eccos_core.server.keys import KeyDatabase

    config = load(tmp_path, {})
    with scripted_router(ScriptedBackend({"small": ["a"], "large": ["b"]}, POOL), POOL, {"": [0.8, 0.9]}) as router:
        assert isinstance(open_gate(router, config.path, config.server), OpenGate)
        database = KeyDatabase(find_database(config.path, config.server))
        database.revoke(database.create(KeyRules("a"))[0].id)
        database.close()
        gate = open_gate(router, config.path, config.server)
        assert isinstance(gate, KeyGate)
        gate.close()


def test_a_database_that_cannot_be_opened_says_so_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"keys\.sqlite cannot be opened"):
        open_engine(tmp_path / "file" / "keys.sqlite")
    (tmp_path / "other.sqlite").write_bytes(b"no database at all, but long enough for a header" * 4)
    with pytest.raises(InputError, match=r"other\.sqlite cannot be opened \(DatabaseError\)"):
        open_engine(tmp_path / "other.sqlite")
    with pytest.raises(InputError, match=r"must be a file for SQLite") as raised:
        read_address("mysql://u:hidden-word@h/d")
    assert "hidden-word" not in str(raised.value)
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    with pytest.raises(MissingDependencyError, match=r"eccos\[postgres\]"):
        open_engine("postgresql://u@127.0.0.1:9/d")


def test_a_key_over_http_needs_a_tenant_that_the_router_knows() -> None:
    with scripted_router(ScriptedBackend({"small": ["a"], "large": ["b"]}, POOL), POOL, {"": [0.8, 0.9]}) as router:
        serving = Serving(router, OpenGate(), ServerSettings())
        check_names(KeyRules("a", "anybody"), serving)
        router.swap(replace(router.parts, tenants=Tenants({"search": TenantConfig()})))
        check_names(KeyRules("a", "search"), serving)
        with pytest.raises(ApiError, match="the router has no tenant 'serch'"):
            check_names(KeyRules("a", "serch"), serving)
