"""Drive a headless Chromium over its DevTools protocol: open a page at a size, in a colour scheme, read it, press keys.

Debian's `chromium` and the package `websockets` are all that it needs. The browser reaches this machine only.
"""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from websockets.sync.client import ClientConnection, connect

START_S, CALL_S = 60.0, 60.0


def find_chromium() -> str | None:
    """Return the path of Chromium, or None where it is not installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


class Page:
    """One page of a browser. `messages` holds what the console and the browser complain about."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection, self._numbers = connection, itertools.count(1)
        self.messages: list[str] = []
        self.requested: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **given: object) -> dict[str, Any]:
        """Call a method of the protocol and return its result. Raises `RuntimeError` with the browser's error."""
        number = next(self._numbers)
        self._connection.send(json.dumps({"id": number, "method": method, "params": given}))
        while True:
            message = json.loads(self._connection.recv(timeout=CALL_S))
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                result: dict[str, Any] = message["result"]
                return result
            self._hear(message)

    def _hear(self, event: dict[str, Any]) -> None:
        given = event.get("params", {})
        match event.get("method"):
            case "Log.entryAdded":
                self.messages.append(given["entry"]["text"])
            case "Runtime.exceptionThrown":
                self.messages.append(str(given["exceptionDetails"]))
            case "Runtime.consoleAPICalled":
                self.messages.append(str(given["args"]))
            case "Network.requestWillBeSent":
                self.requested.append(given["request"]["url"])
            case "Page.javascriptDialogOpening":
                self.messages.append(f"a dialog: {given['message']}")

    def look(self, width: int, height: int, scheme: Literal["light", "dark"] = "light") -> None:
        """Take a size in CSS pixels and a colour scheme, without motion."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.call("Emulation.setEmulatedMedia", features=features)

    def open(self, url: str, ready: str = "document.readyState === 'complete'") -> None:
        """Open an address and wait until an expression is true."""
        self.call("Page.navigate", url=url)
        self.wait_for(ready)

    def run(self, expression: str) -> Any:
        """Return the JSON value of a JavaScript expression. Raises `RuntimeError` for one that throws."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(str(found["exceptionDetails"]))
        return found["result"].get("value")

    def wait_for(self, expression: str, within_s: float = 30.0) -> None:
        """Wait until a JavaScript expression is true. Raises `TimeoutError`."""
        ends = time.monotonic() + within_s
        while time.monotonic() < ends:
            if self.run(f"Boolean({expression})"):
                return
            time.sleep(0.05)
        raise TimeoutError(f"{expression} did not become true within {within_s:g} s. Heard: {self.messages[-5:]}")

    def press(self, key: str, code: int, text: str | None = None) -> None:
        """Press and release a key, such as ("Tab", 9)."""
        down = {"text": text} if text else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode=code, **down)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=code)

    def screenshot(self, path: Path) -> None:
        """Write what is in view as a PNG."""
        found = self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(found["data"]))

    def accessible(self) -> list[tuple[str, str]]:
        """Return (role, name) of everything that a screen reader meets."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        return [
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in nodes
            if not node.get("ignored") and "role" in node
        ]


@contextmanager
def open_browser(folder: Path, chromium: str | None = None) -> Iterator[Page]:
    """Start Chromium with its profile in `folder`, and yield a page. Raises `RuntimeError` where it does not start."""
    command = [
        chromium or find_chromium() or "chromium", "--headless=new", "--no-sandbox", "--disable-gpu",
        "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run", "--disable-extensions",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", f"--user-data-dir={folder}",
        "--remote-debugging-port=0", "--remote-allow-origins=*", "about:blank",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with connect(_address(folder, process), max_size=None, open_timeout=CALL_S) as connection:
            yield Page(connection)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _address(folder: Path, process: subprocess.Popen[bytes]) -> str:
    """Return the DevTools address of the browser's first page."""
    import urllib.request

    ends, told = time.monotonic() + START_S, folder / "DevToolsActivePort"
    while time.monotonic() < ends and process.poll() is None:
        if told.exists() and (lines := told.read_text().split()):
            with urllib.request.urlopen(f"http://127.0.0.1:{lines[0]}/json/list", timeout=10) as answer:
                pages = [each for each in json.load(answer) if each["type"] == "page"]
            if pages:
                return str(pages[0]["webSocketDebuggerUrl"])
        time.sleep(0.05)
    raise RuntimeError(f"Chromium did not start within {START_S:g} s (exit status {process.poll()})")
