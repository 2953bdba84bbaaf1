import pytest

from eccos_core.config import TenantConfig
from eccos_core.domain import QualityFloor, Request
from eccos_core.errors import RequestError
from eccos_core.routing.tenants import Tenants

TENANTS = Tenants(
    {
        "hospital": TenantConfig(
            "hospital",
            policy=QualityFloor(0.9),
            min_quality=0.5,
            allow=frozenset({"small", "large"}),
            deny=frozenset({"cheap"}),
            required_tags=frozenset({"eu"}),
        ),
        "plain": TenantConfig("plain"),
    }
)


def test_a_tenant_narrows_what_a_request_may_use() -> None:
    asked = Request.of(
        "hi", tenant="hospital", allow=frozenset({"small", "other"}), deny=frozenset({"bad"}), min_quality=0.3
    )
    narrowed = TENANTS.narrow(asked)
    assert narrowed.allow == {"small"}
    assert narrowed.deny == {"cheap", "bad"}
    assert narrowed.required_tags == {"eu"}
    assert narrowed.min_quality == 0.5
    assert TENANTS.narrow(narrowed) == narrowed


def test_a_request_may_ask_for_more_than_its_tenant_does() -> None:
    assert TENANTS.narrow(Request.of("hi", tenant="hospital", min_quality=0.8)).min_quality == 0.8


def test_a_tenant_may_have_a_policy_of_its_own() -> None:
    assert TENANTS.policy_of(Request.of("hi", tenant="hospital")) == QualityFloor(0.9)
    assert TENANTS.policy_of(Request.of("hi", tenant="plain")) is None
    assert TENANTS.policy_of(Request.of("hi")) is None


def test_without_a_tenant_nothing_changes() -> None:
    for asked in (Request.of("hi"), Request.of("hi", tenant="plain")):
        assert TENANTS.narrow(asked) == asked


def test_an_unknown_tenant_is_an_error_where_there_are_tenants() -> None:
    with pytest.raises(RequestError, match="did you mean 'hospital'"):
        TENANTS.narrow(Request.of("hi", tenant="hopsital"))
    assert Tenants({}).narrow(Request.of("hi", tenant="anybody")).tenant == "anybody"


def test_lists_without_a_common_model_are_an_error() -> None:
    with pytest.raises(RequestError, match="no model is left"):
        TENANTS.narrow(Request.of("hi", tenant="hospital", allow=frozenset({"other"})))
