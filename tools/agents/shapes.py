"""Keep the requests of an agent as test data: their shape, without anything of the machine that they came from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from eccos_core.io.files import atomic_writer
from tools.agents.recorder import Exchange

LONGEST_TEXT, LONGEST_SCRIPT = 80, 2_000
"""Longer texts keep their beginning and say how long they were, so that `expand` makes them so long again. What the
scripted model reads (`[[tool ...]]`) and arguments of tools stay whole."""
_HEADERS = re.compile(
    r"^(accept|content-type|user-agent|anthropic-.*|x-app|x-stainless-(lang|runtime|retry-count))$", re.IGNORECASE
)
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
_LONG_HEX = re.compile(r"\b[0-9a-f]{32,}\b")
_FILLER = " The rest of this text was cut when it was recorded."


def write_shapes(
    folder: Path, name: str, version: str, exchanges: Sequence[Exchange], hidden: Mapping[str, str]
) -> Path:
    """Write the requests of one run as `NAME.json`. `hidden` maps texts of this machine to what stands for them."""
    kept = [
        {
            "method": each.method,
            "path": each.path,
            "headers": {key: value for key, value in each.headers.items() if _HEADERS.match(key)},
            "body": shorten(each.body, hidden),
        }
        for each in exchanges
    ]
    told = {"agent": name, "version": version, "requests": kept}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    with atomic_writer(path) as file:
        file.write((json.dumps(told, indent=1, ensure_ascii=False) + "\n").encode())
    return path


def shorten(value: Any, hidden: Mapping[str, str]) -> Any:
    """Return a JSON value with long texts cut, and with ids, paths and names of this machine replaced."""
    if isinstance(value, dict):
        return {_hide(key, hidden): shorten(inner, hidden) for key, inner in value.items()}
    if isinstance(value, list):
        return [shorten(inner, hidden) for inner in value]
    if not isinstance(value, str):
        return value
    text = _hide(value, hidden)
    longest = LONGEST_SCRIPT if "[[" in text or text.startswith("{") else LONGEST_TEXT
    return text if len(text) <= longest else f"{text[:LONGEST_TEXT]}<<cut from {len(text)}>>"


def expand(value: Any) -> Any:
    """Return a recorded value with every cut text as long as it was."""
    if isinstance(value, dict):
        return {key: expand(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [expand(inner) for inner in value]
    cut = re.search(r"<<cut from (\d+)>>$", value) if isinstance(value, str) else None
    if cut is None:
        return value
    head, length = value[: cut.start()], int(cut[1])
    return (head + _FILLER * (length // len(_FILLER)))[:length]


def texts_of(value: Any) -> Iterator[str]:
    """Yield every text of a JSON value, the keys of objects too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from texts_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts_of(inner)


def _hide(text: str, hidden: Mapping[str, str]) -> str:
    for real, stand_in in hidden.items():
        text = text.replace(real, stand_in)
    return _LONG_HEX.sub("0" * 32, _UUID.sub("00000000-0000-4000-8000-000000000000", text))
