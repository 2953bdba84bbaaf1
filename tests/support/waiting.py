"""Wait for what another thread or process brings about."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(holds: Callable[[], object], timeout_s: float) -> float:
    """Ask until it holds, and return after how many seconds that was. Fails when it takes longer than `timeout_s`."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < timeout_s, f"it did not come to pass in {timeout_s:g} s"
        time.sleep(0.01)
    return time.monotonic() - began
