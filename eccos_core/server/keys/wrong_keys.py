"""How many wrong keys an address may send. Right keys never count, and no address changes what another one may do.

The rule is that of `rates`: n may come at once, then one every 60 / n seconds. It is kept in memory, for each process.
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping

from eccos_core.server.errors import ApiError
from eccos_core.server.keys.rates import WINDOW_S

MOST_ADDRESSES = 10_000
"""So many addresses are remembered. The one that sent its latest wrong key longest ago is forgotten first."""
HEADERS = ("authorization", "x-api-key")


class WrongKeyLimit:
    """Counts wrong keys by client address. `per_minute` may be changed at any time. Runs on one event loop."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._paid_until: OrderedDict[str, float] = OrderedDict()

    def count(self, headers: Mapping[str, str], address: str) -> None:
        """Count a refused request. Raises `ApiError` 429 over the limit. A request without any key does not count."""
        if not any(headers.get(name) for name in HEADERS):
            return
        who, now = network_of(address), self._clock()
        paid_until = max(self._paid_until.get(who, now), now) + WINDOW_S / self.per_minute
        wait_s = paid_until - now - WINDOW_S
        if wait_s > 1e-6:
            whole_s = max(1, -int(-wait_s // 1))
            told = f"too many wrong API keys came from your address. Try again in {whole_s} s, with a right one."
            raise ApiError("rate_limit", told, code="too_many_wrong_keys", headers={"retry-after": str(whole_s)})
        self._paid_until[who] = paid_until
        self._paid_until.move_to_end(who)
        while len(self._paid_until) > MOST_ADDRESSES:
            self._paid_until.popitem(last=False)

    def __len__(self) -> int:
        return len(self._paid_until)


def network_of(address: str) -> str:
    """Return who an address belongs to: itself, or for IPv6 its network of 64 bits, as one client has all of it."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        mapped = found.ipv4_mapped
        return str(mapped) if mapped else str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)
