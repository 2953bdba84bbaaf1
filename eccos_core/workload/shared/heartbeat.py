"""The thread of heartbeats of a replica, and its farewell."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from queue import Empty, SimpleQueue
from typing import Protocol

from eccos_core.errors import SharedStateError
from eccos_core.workload.shared.message import SCRIPT
from eccos_core.workload.shared.server import SharedServer, StateAway
from eccos_core.workload.shared.settings import SCHEMA, SharedSettings

COALESCE_S = 0.002  # a slot that was given back waits so long for others to travel with it
FIRST_RETRY_S, LONGEST_RETRY_S = 0.1, 1.0
_log = logging.getLogger("eccos.shared")


class Beating(Protocol):
    """What gives signs of life: the shared workload."""

    @property
    def is_away(self) -> bool:
        """Whether Redis does not answer."""
        ...

    def beat(self, retry_s: float) -> float:
        """Send a heartbeat if one is due. Return the seconds to the next."""
        ...


def keep_alive(reference: weakref.ref[Beating], wake: SimpleQueue[bool], settings: SharedSettings) -> None:
    """Send heartbeats, at once when something changed, until the workload is gone."""
    pause_s, retry_s = settings.heartbeat_s, FIRST_RETRY_S
    while True:
        try:
            if not wake.get(timeout=pause_s):
                return
            time.sleep(COALESCE_S)
            while not wake.empty():
                if not wake.get():
                    return
        except Empty:
            pass
        workload = reference()
        if workload is None:
            return
        pause_s = workload.beat(retry_s)
        retry_s = min(2 * retry_s, LONGEST_RETRY_S) if workload.is_away else FIRST_RETRY_S
        del workload


def leave(
    heartbeats: threading.Thread, wake: SimpleQueue[bool], server: SharedServer, settings: SharedSettings, replica: str
) -> None:
    """Give all slots back when the workload ends. A replica that cannot is forgotten with its lease."""
    if not heartbeats.is_alive():
        return  # a forked child is not the replica, and it has no thread
    wake.put(False)
    if heartbeats is not threading.current_thread():
        heartbeats.join(4 * settings.timeout_s)  # or its last message would enter the replica again
    rules = {"lease_ms": 1000 * settings.lease_s, "grace_ms": 0, "pause_ms": 1000 * settings.lease_s}
    try:
        server.run(SCRIPT, "meta", {"schema": SCHEMA, "replica": replica, "leave": True, "settings": rules})
    except (StateAway, SharedStateError) as error:
        _log.info("the slots of this replica come back with its lease: %s", error)
    server.close()
