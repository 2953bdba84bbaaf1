"""The data of the dashboard over HTTP: right values, who may see what, hostile texts, and many decisions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dashboard_server import ADMIN, TENANT_A, TENANT_B, KeyedGate, logged_router
from starlette.testclient import TestClient

from eccos_core.domain import Request
from eccos_core.errors import BackendError, FailureKind
from eccos_core.router import Router
from eccos_core.server.app import build_app
from eccos_core.server.keys import KeyDatabase, KeyGate, KeyRules
from eccos_core.server.ui.routes import CONTENT_SECURITY_POLICY

HOSTILE = ("<img src=x onerror=alert(1)>", "\u202egnp.exe\x1b[2J\"'`${7*7}")


def client_of(router: Router, *, keys: bool = False) -> TestClient:
    return TestClient(build_app(router, KeyedGate() if keys else None), base_url="http://127.0.0.1")


def get(client: TestClient, path: str, key: str | None = None, status: int = 200) -> Any:
    answer = client.get(f"/ui/data/{path}", headers={"authorization": f"Bearer {key}"} if key else {})
    assert answer.status_code == status, answer.text
    return json.loads(answer.text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@pytest.fixture
def router(tmp_path: Path) -> Iterator[Router]:
    with logged_router(tmp_path) as router:
        yield router


def test_the_figures_are_those_of_the_log(router: Router) -> None:
    for place in range(10):
        answer = router.complete("a hard question" if place < 4 else "hello there")
        router.record(answer.decision.id, float(place % 2))
    log = router.decision_store.log
    assert log is not None
    log.flush()
    entries = log.entries()
    client = client_of(router)
    found = get(client, "figures?period=1h")
    assert found["total"]["decisions"] == found["total"]["answers"] == len(entries) == 10
    assert found["total"]["paid_usd"] == pytest.approx(sum(entry.paid_usd or 0 for entry in entries))
    assert found["total"]["predicted"] == pytest.approx((4 * 0.9 + 6 * 0.8) / 10)
    assert (found["total"]["asked"], found["total"]["label"]) == (0.5, 0.5)
    assert {each["model"]: each["share"] for each in found["models"]} == {"small": 0.6, "large": 0.4}
    assert sum(step["paid_usd"] for step in found["steps"]) == pytest.approx(found["total"]["paid_usd"])
    assert 0 < len(found["steps"]) <= 62
    assert [(each["count"], each["label"]) for each in found["calibration"]["bins"]] == [(6, 0.5), (4, 0.5)]
    assert found["calibration"]["error"] == pytest.approx((6 * 0.3 + 4 * 0.4) / 10)
    savings, report = get(client, "savings?period=1h&baseline=large"), router.savings("large")
    assert savings["saved_usd"] == pytest.approx(report.estimated.saved_usd)
    assert savings["saved_share"] == pytest.approx(report.estimated.saved_share)
    assert savings["quality"]["decisions"] == 10
    assert sum(step["baseline_usd"] for step in savings["steps"]) == pytest.approx(report.estimated.baseline_usd)
    assert get(client, "savings?period=all")["baseline"] == router.savings().estimated.baseline


def test_one_decision_is_explained_with_what_other_prices_would_choose(router: Router) -> None:
    completion = router.complete(Request.of("hello there", min_quality=0.85))
    other = router.complete("hello there")
    client = client_of(router)
    found = get(client, f"decisions/{completion.decision.id}")
    assert found["decided_model"] == found["model"] == "large"
    assert found["quality_asked"] == 0.85
    assert {each["model"]: each["may_answer"] for each in found["forecast"]} == {"small": False, "large": True}
    assert found["prices"] == [{"model": "large", "from_usd_per_quality": 0.0, "to_usd_per_quality": None}]
    free = get(client, f"decisions/{other.decision.id}")
    forecast = {each["model"]: each for each in free["forecast"]}
    turn = (forecast["large"]["cost_usd"] - forecast["small"]["cost_usd"]) / (0.9 - 0.8)
    assert free["prices"][0]["to_usd_per_quality"] == pytest.approx(turn)
    assert [each["model"] for each in free["prices"]] == ["small", "large"]
    assert free["chosen_at_price"] == free["decided_model"]
    assert free["notes"] == []
    get(client, "decisions/unknown", status=404)


def test_the_list_has_the_newest_first_and_can_be_narrowed(router: Router) -> None:
    made = [router.complete("a hard question" if place % 2 else "hello there") for place in range(6)]
    client = client_of(router)
    rows = get(client, "decisions?last=4")["decisions"]
    assert [row["id"] for row in rows] == [each.decision.id for each in reversed(made)][:4]
    assert rows[0]["reason"] == made[-1].decision.reason
    older = get(client, f"decisions?before={rows[-1]['at']}")["decisions"]
    assert [row["id"] for row in older] == [made[1].decision.id, made[0].decision.id]
    assert {row["model"] for row in get(client, "decisions?model=large")["decisions"]} == {"large"}
    assert get(client, "decisions?model=nobody")["decisions"] == []


@pytest.mark.parametrize(
    "path",
    ["figures?period=2h", "savings?baseline=nobody", "decisions?last=0", "decisions?last=nan", "decisions?before=x"],
)
def test_a_wrong_question_is_refused_by_name(router: Router, path: str) -> None:
    said = get(client_of(router), path, status=400)["error"]["message"]
    assert path.split("?")[1].split("=")[0] in said


def test_without_a_log_the_page_says_so(tmp_path: Path) -> None:
    with logged_router(tmp_path, with_log=False) as router:
        client = client_of(router)
        for path in ("figures", "savings", "decisions"):
            assert get(client, path) == {"log": False}
        get(client, "decisions/any", status=404)
        status = get(client, "status")
        assert status["log"]["present"] is False
        assert status["budgets"] is None


def test_an_empty_log_has_empty_figures(router: Router) -> None:
    client = client_of(router)
    found = get(client, "figures?period=all")
    assert found["total"]["decisions"] == 0
    assert found["models"] == []
    assert found["calibration"] == {"labelled": 0, "error": None, "bins": []}
    assert get(client, "savings?period=all")["baseline"] is None
    assert get(client, "decisions")["decisions"] == []


def test_the_data_needs_a_key_and_the_page_does_not(router: Router) -> None:
    client = client_of(router, keys=True)
    assert client.get("/ui").status_code == 200
    for path in ("status", "figures", "savings", "decisions", "decisions/any"):
        get(client, path, status=401)
        get(client, path, key="wrong", status=401)


def test_a_tenant_sees_its_own_decisions_only(tmp_path: Path) -> None:
    with logged_router(tmp_path, log_prompts=True) as router:
        ids = {
            tenant: router.complete(Request.of("a secret", tenant=tenant, session_id="s")).decision.id
            for tenant in ("a", "b", None)
        }
        client = client_of(router, keys=True)
        for key, tenant in ((TENANT_A, "a"), (TENANT_B, "b")):
            assert [row["id"] for row in get(client, "decisions", key)["decisions"]] == [ids[tenant]]
            assert get(client, "figures", key)["total"]["decisions"] == 1
            assert get(client, "savings", key)["quality"] is None
            mine = get(client, f"decisions/{ids[tenant]}", key)
            assert (mine["text"], mine["session_id"]) == (None, None)
            get(client, f"decisions/{ids[None]}", key, status=404)
            viewer = get(client, "status", key)["viewer"]
            assert (viewer["is_admin"], viewer["tenant"]) == (False, tenant)
        assert len(get(client, "decisions", ADMIN)["decisions"]) == 3
        assert get(client, "figures", ADMIN)["total"]["decisions"] == 3
        assert "a secret" in get(client, f"decisions/{ids['a']}", ADMIN)["text"]


def test_a_prompt_is_shown_only_where_the_log_keeps_it(router: Router) -> None:
    answer = router.complete("a secret")
    client = client_of(router)
    assert get(client, f"decisions/{answer.decision.id}")["text"] is None
    for path in ("status", "figures", "savings", "decisions", f"decisions/{answer.decision.id}"):
        assert "a secret" not in client.get(f"/ui/data/{path}").text


def test_an_older_row_with_a_prompt_keeps_it_to_itself_when_the_log_keeps_none(tmp_path: Path) -> None:
    with logged_router(tmp_path, log_prompts=True) as router:
        kept = router.complete("a secret").decision.id
    with logged_router(tmp_path) as router:
        assert get(client_of(router), f"decisions/{kept}")["text"] is None


def test_hostile_names_and_texts_stay_texts(tmp_path: Path) -> None:
    with logged_router(tmp_path, names=HOSTILE, log_prompts=True) as router:
        answer = router.complete(Request.of("hello <script>alert(1)</script>\x00", tenant="<b>t</b>"))
        client = client_of(router)
        for path in ("status", "figures?period=1h", "savings", "decisions", f"decisions/{answer.decision.id}"):
            got = client.get(f"/ui/data/{path}")
            assert got.status_code == 200, got.text
            assert got.headers["content-type"] == "application/json"
            assert not any(letter in got.text for letter in "\u202e\x1b\x00")
        assert get(client, "figures?period=1h")["models"][0]["model"] == HOSTILE[0]


def test_the_page_is_three_files_under_a_strict_policy(router: Router) -> None:
    client = client_of(router)
    for path, kind in (
        ("/ui", "text/html"), ("/ui/dashboard.css", "text/css"), ("/ui/dashboard.js", "text/javascript"),
        ("/ui/data/status", "application/json"),
    ):  # fmt: skip
        got = client.get(path)
        assert got.status_code == 200
        assert got.headers["content-type"].startswith(kind)
        assert got.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
        assert got.headers["x-content-type-options"] == "nosniff"
        assert "http://" not in got.text.replace("http://www.w3.org/2000/svg", "")
        assert "https://" not in got.text
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    page = client.get("/ui").text
    assert "style=" not in page
    assert "<script>" not in page
    script = client.get("/ui/dashboard.js").text
    for risky in (
        "innerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "localStorage",
        "sessionStorage",
        "cookie",
    ):
        assert risky not in script


def test_nobody_can_write_through_the_page(router: Router) -> None:
    client = client_of(router)
    for path in ("/ui", "/ui/data/status", "/ui/data/decisions/x"):
        for method in ("POST", "PUT", "DELETE"):
            assert client.request(method, path).status_code in (404, 405)
    assert client.get("/ui/../app.py").status_code == 404
    assert client.get("/ui/routes.py").status_code == 404


def test_budgets_of_all_tenants_are_for_admins_and_ones_own_for_everybody(router: Router, tmp_path: Path) -> None:
    gate = KeyGate(KeyDatabase(tmp_path / "keys.sqlite"), lambda _: {}, tenants={"a": 10.0, "b": 20.0})
    try:
        keys = {
            name: gate.database.create(KeyRules(name=name, tenant=tenant, is_admin=name == "ops"))[1]
            for name, tenant in (("ana", "a"), ("ops", None))
        }
        client = TestClient(build_app(router, gate), base_url="http://127.0.0.1")
        answer = client.post(
            "/v1/chat/completions",
            json={"model": "eccos", "messages": [{"role": "user", "content": "hello"}]},
            headers={"authorization": f"Bearer {keys['ana']}"},
        )
        assert answer.status_code == 200
        seen = {row["tenant"]: row for row in get(client, "status", keys["ops"])["budgets"]}
        assert set(seen) == {"a", "b"}
        assert seen["a"]["spent_usd"] == pytest.approx(answer.json()["eccos"]["cost_usd"], abs=1e-9)
        assert seen["a"]["left_usd"] == pytest.approx(10 - seen["a"]["spent_usd"])
        assert seen["b"]["left_usd"] == 20
        assert [row["tenant"] for row in get(client, "status", keys["ana"])["budgets"]] == ["a"]
    finally:
        gate.close()


def test_an_open_circuit_is_seen(tmp_path: Path) -> None:
    failing = BackendError("small", "too busy", kind=FailureKind.OVERLOADED)
    with logged_router(tmp_path, answers={"small": [failing], "large": ["large says hello"]}) as router:
        client = client_of(router)
        for _ in range(20):
            router.complete("hello there")
        models = {row["model"]: row for row in get(client, "status")["models"]}
        assert (models["small"]["breaker"], models["large"]["breaker"]) == ("open", "closed")
        row = get(client, "decisions")["decisions"][-1]
        assert (row["decided_model"], row["model"]) == ("small", "large")
        assert row["attempts"] == [{"model": "small", "kind": "overloaded"}]
        why = get(client, f"decisions/{row['id']}")
        assert any("small did not answer" in note for note in why["notes"])
        assert "too busy" in why["attempts"][0]["message"]
