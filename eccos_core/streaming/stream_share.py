"""What one replica tells the others of a stream, and learns from them: the account, and the price of quality.

Every sum is absolute, so a message that is lost or comes twice does no harm.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from eccos_core.streaming.quality_price import SlowTerm

_COPIED = (
    "count",
    "used",
    "lost",
    "low",
    "free",
    "earned",
    "price",
    "born",
    "made",
    "version",
    "horizon",
    "horizon_age_ms",
)
_PRICE_ONLY = {"kind": "price", "used": 0.0, "held": 0.0, "want": 0.0, "count": 0, "lost": 0.0}


class SharedAccount(Protocol):
    """An account that several replicas keep together. `SharedSpending` and `SharedFloor` are the two."""

    def is_urgent(self, now_s: float) -> bool:
        """Return whether to report now, before the next heartbeat."""
        ...

    def report(self, now_s: float) -> dict[str, Any]:
        """Return this replica's sums, and commit to them."""
        ...

    def adopt(self, answer: Mapping[str, Any], sent: Mapping[str, Any], now_s: float) -> bool:
        """Take what the answer to a report gives. Return whether requests that wait may go on."""
        ...

    def go_alone(self, part: float, now_s: float) -> None:
        """Go on without the others. part: of the money that is earned from now on."""
        ...


class StreamShare:
    """The part of one replica in a stream. It has the lock of the stream, so call it from any thread.

    account: None where replicas share only the price.
    """

    def __init__(
        self,
        account: SharedAccount | None,
        slow: SlowTerm,
        lock: threading.Lock,
        clock: Callable[[], float],
        wake: Callable[[], None],
    ) -> None:
        self._account, self._slow = account, slow
        self._lock, self._clock, self._wake = lock, clock, wake
        self._member, self._sequence = uuid.uuid4().hex[:8], 0
        self._agreed: dict[str, Any] | None = None  # what Redis said that this replica has
        self._copy: dict[str, Any] | None = None  # what Redis said that all have, in case it loses that
        self._answered_s = 0.0
        self._is_urgent = False

    def follow(self, slow: SlowTerm) -> None:
        """Share the price of a new controller of the same stream from now on."""
        with self._lock:
            slow.moved = self._slow.moved
            slow.adopt(self._slow.value, slow.moved)
            self._slow = slow

    def note_use(self) -> None:
        """Ask for an exchange if the account needs one. Call it with the lock, after a decision."""
        if self._account is not None and self._account.is_urgent(self._clock()):
            self._is_urgent = True
            self._wake()

    @property
    def is_urgent(self) -> bool:
        """Whether it has asked for an exchange since the last report."""
        return self._is_urgent

    def report(self) -> dict[str, Any]:
        """Return the sums of this replica under a growing number."""
        with self._lock:
            self._sequence += 1
            self._is_urgent = False
            now_s, slow = self._clock(), self._slow
            account = dict(_PRICE_ONLY) if self._account is None else self._account.report(now_s)
            report = {
                **account,
                "member": self._member,
                "sequence": self._sequence,
                "moved": slow.moved,
                "price": slow.value,
                "price_low": slow.low,
                "price_high": slow.high,
            }
            if self._copy is not None:
                report |= {"agreed": self._agreed, "copy": self._copy, "age_ms": 1000 * (now_s - self._answered_s)}
            return report

    def adopt(self, answer: Mapping[str, Any], sent: Mapping[str, Any]) -> bool:
        """Take over what the answer to a report says. Return whether requests that wait may go on."""
        if answer.get("is_old"):
            return False
        with self._lock:
            self._answered_s = self._clock()
            self._slow.adopt(answer["price"], sent["moved"])
            is_new_horizon = answer.get("horizon") != sent.get("horizon")
            said = {name: 0 if is_new_horizon else sent[name] for name in ("used", "count", "lost")}
            held = answer.get("held", 0.0)
            self._agreed = {**said, "held": held, "moved": sent["moved"], "born": answer["born"]}
            self._copy = {name: answer[name] for name in _COPIED if name in answer}
            return self._account is not None and self._account.adopt(answer, sent, self._answered_s)

    def go_alone(self, part: float) -> None:
        """Go on without the others, because Redis is away. part: of the money that is earned from now on."""
        if self._account is not None:
            with self._lock:
                self._account.go_alone(part, self._clock())
