"""The limit of wrong keys by address: what counts, what is told, and how much is remembered."""

from __future__ import annotations

import pytest

from eccos_core.server.errors import ApiError
from eccos_core.server.keys.wrong_keys import MOST_ADDRESSES, WrongKeyLimit, network_of

WRONG = {"authorization": "Bearer sk-wrong"}


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def refused(limit: WrongKeyLimit, address: str) -> int | None:
    """Count one wrong key. Returns when to come back in seconds, None where the address may go on."""
    try:
        limit.count(WRONG, address)
    except ApiError as error:
        return int(error.headers["retry-after"]) if error.status == 429 else -1
    return None


def test_an_address_may_send_as_many_as_the_limit_and_then_one_at_a_time() -> None:
    clock = Clock()
    limit = WrongKeyLimit(6, clock)
    assert [refused(limit, "10.0.0.1") for _ in range(7)] == [None] * 6 + [10]
    assert refused(limit, "10.0.0.2") is None, "another address is not its business"
    clock.now += 10
    assert [refused(limit, "10.0.0.1") for _ in range(2)] == [None, 10]
    clock.now += 60
    assert [refused(limit, "10.0.0.1") for _ in range(7)] == [None] * 6 + [10]
    limit.per_minute = 60
    clock.now += 1
    assert refused(limit, "10.0.0.1") is None


def test_a_request_without_a_key_does_not_count() -> None:
    limit = WrongKeyLimit(1, Clock())
    for _ in range(5):
        limit.count({"user-agent": "curl"}, "10.0.0.1")
    assert len(limit) == 0


def test_memory_is_bounded_and_the_newest_addresses_are_kept() -> None:
    limit = WrongKeyLimit(1, Clock())
    for number in range(MOST_ADDRESSES + 500):
        assert refused(limit, f"10.{number // 65536}.{number // 256 % 256}.{number % 256}") is None
    assert len(limit) == MOST_ADDRESSES
    last = MOST_ADDRESSES + 499
    assert refused(limit, f"10.0.{last // 256}.{last % 256}") is not None


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
    ],
)
def test_an_address_of_version_6_counts_as_its_network(address: str, network: str) -> None:
    assert network_of(address) == network
