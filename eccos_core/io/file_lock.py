"""Lock a file between processes. The lock ends with the process that holds it, however that ends."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def lock_descriptor(descriptor: int) -> None:
    """Lock an open file until it is closed. Raises `OSError` when another process holds the lock."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def try_lock(path: Path) -> int | None:
    """Open and lock a file, and return its descriptor. Returns None when somebody else holds the lock.

    Close the descriptor to release the lock.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        lock_descriptor(descriptor)
        if path.exists() and os.fstat(descriptor).st_ino == path.stat().st_ino:
            return descriptor
    except OSError:
        os.close(descriptor)
        return None
    os.close(descriptor)  # whoever held it has just deleted the file
    return try_lock(path)
