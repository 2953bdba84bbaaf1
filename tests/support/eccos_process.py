"""`eccos` as users run it: the commands in processes of their own, and a server that can be killed."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from served_pool import KEY
from waiting import wait_until
from warm_process import WarmProcess, run_warm

from eccos_core.server.keys import KeyDatabase, KeyRules


@dataclass
class Process:
    """A running `eccos serve`: its address, and the file of all that it says."""

    address: str
    process: WarmProcess
    said: Path

    def ask(self, secret: str, text: str = "hello") -> httpx.Response:
        body = {"model": "small", "messages": [{"role": "user", "content": text}]}
        return httpx.post(f"{self.address}/v1/chat/completions", json=body, headers={"x-api-key": secret}, timeout=60)


def eccos(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SERVED_KEY": KEY}
    return run_warm(["-m", "eccos_core.cli", *arguments], cwd=folder, env=environment)


def make_key(folder: Path, *options: str) -> str:
    made = eccos(folder, "keys", "create", "test", *options)
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def create_key(folder: Path, **rules: Any) -> str:
    """Do as `make_key`, without a process: for tests that are about something else."""
    place = folder / ".eccos" / "keys.sqlite"
    place.parent.mkdir(exist_ok=True)
    database = KeyDatabase(place)
    _, secret = database.create(KeyRules(name="test", **rules))
    database.close()
    return secret


@contextmanager
def serve(folder: Path, *options: str) -> Iterator[Process]:
    said = folder / "said.txt"
    command = ["-m", "eccos_core.cli", "serve", "--port", "0", *options]
    with said.open("ab") as file:
        begin = said.stat().st_size
        process = WarmProcess(command, cwd=folder, env={**os.environ, "SERVED_KEY": KEY}, stdout=file, stderr=file)
    try:
        address = None
        while address is None:
            assert process.poll() is None, said.read_text()
            address = re.search(r"http://127\.0\.0\.1:\d+", said.read_bytes()[begin:].decode())
            time.sleep(0.05)
        yield Process(address[0], process, said)
    finally:
        process.terminate()
        process.wait(60)


def settled_accounts(folder: Path) -> dict[str, tuple[int, int]]:
    """Return what each account has spent, when no call is open: all of it is written then, and nothing is reserved."""
    found: dict[str, tuple[int, int]] = {}

    def is_settled() -> bool:
        found.update(accounts(folder))
        return not any(reserved for _, reserved in found.values())

    wait_until(is_settled, timeout_s=20)
    return found


def accounts(folder: Path, later_s: float = 0.0) -> dict[str, tuple[int, int]]:
    database = KeyDatabase(folder / ".eccos" / "keys.sqlite", clock=lambda: time.time() + later_s)
    if later_s:
        database.beat()
    found = {each.name: (each.spent, each.reserved) for each in database.balances()}
    database.close()
    return found
