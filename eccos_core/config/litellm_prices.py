"""Reads LiteLLM's price map from its JSON file. This takes milliseconds, and importing litellm takes seconds."""

from __future__ import annotations

import difflib
import importlib.util
import json
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from eccos_core.errors import MissingDependencyError

FILE = "model_prices_and_context_window_backup.json"
_ROUTES = {
    "bedrock": r"(converse|converse_like|invoke|chat_completions)/",
    "openai": r"responses/",
    "azure": r"responses/",
}
"""Provider -> the ways to call it, which LiteLLM takes from the name of a model."""
_BEDROCK_REGIONS = r"(global|us|eu|apac|jp|au|us-gov)\.|[a-z]{2}(-[a-z]+)+-\d/"
_BEDROCK_THROUGHPUT = r"(?<=:\d):\d+k$|\[\w+\]$"
_RESOLD = {"github": ("", "azure_ai/")}
"""Provider without prices of its own -> the prefixes of the names that it resells."""


def litellm_price_file() -> Path:
    """Find the price map of the installed litellm. Raises `MissingDependencyError`."""
    spec = importlib.util.find_spec("litellm")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        file = Path(folder) / FILE
        if file.is_file():
            return file
    raise MissingDependencyError("litellm", "Looking up model prices", "pip install litellm")


class PriceMap:
    """What LiteLLM knows of each model: prices (USD per token), context window, capabilities, mode.

    Names are looked up exactly, with and without their provider's prefix. Nothing is guessed from parts of a name.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file

    @cached_property
    def _entries(self) -> Mapping[str, Mapping[str, Any]]:
        entries = json.loads((self._file or litellm_price_file()).read_text(encoding="utf-8"))
        return {name: entry for name, entry in entries.items() if name != "sample_spec" and isinstance(entry, dict)}

    @cached_property
    def providers(self) -> frozenset[str]:
        """List every provider that LiteLLM has a price for."""
        prefixes = {name.split("/", 1)[0] for name in self._entries if "/" in name}
        return frozenset({str(entry.get("litellm_provider", "")) for entry in self._entries.values()} | prefixes) - {""}

    def find(self, model: str, provider: str | None = None) -> Mapping[str, Any] | None:
        """Find the entry of a LiteLLM model string, or None. `provider` is its `custom_llm_provider`, if any."""
        if provider and (entry := self._entries.get(f"{provider}/{model}")):
            return entry
        if entry := self._entries.get(model):
            return entry
        if "/" not in model:
            return self._of_provider(model, provider) if provider else None
        return next((entry for name, owner in _other_names(model) if (entry := self._of_provider(name, owner))), None)

    def _of_provider(self, name: str, provider: str | None) -> Mapping[str, Any] | None:
        """Find the entry of a bare name if it belongs to the provider (None: to anyone).

        `openai/gpt-4o` is the entry `gpt-4o` of `openai`. `vertex_ai/gemini-...` belongs to
        `vertex_ai-language-models`.
        """
        entry = self._entries.get(name)
        if entry is None or provider is None:
            return entry
        return entry if _owns(provider, entry) else None

    def modes(self, model: str) -> frozenset[str]:
        """List what all models with this name (its last part) are for: chat, embedding, image_generation."""
        name = model.rpartition("/")[2]
        same = (entry for known, entry in self._entries.items() if known.rpartition("/")[2] == name)
        return frozenset(str(entry.get("mode")) for entry in same)

    @cached_property
    def fields(self) -> frozenset[str]:
        """List every key that an entry of the map may have."""
        return frozenset(key for entry in self._entries.values() for key in entry)

    def nearest(self, model: str) -> str | None:
        """Guess the name that was meant, to end a message with. It never decides a price."""
        provider, _, bare = model.rpartition("/")
        same_provider = [name for name in self._entries if provider and name.startswith(f"{provider}/")]
        of_any = [name for name in self._entries if "/" not in name]
        for name, candidates in ((model, same_provider), (bare, of_any)):
            if close := difflib.get_close_matches(name, candidates, n=1, cutoff=0.8):
                return close[0]
        return None


def _owns(provider: str, entry: Mapping[str, Any]) -> bool:
    owner = str(entry.get("litellm_provider", ""))
    return owner == provider or owner.startswith((f"{provider}-", f"{provider}_"))


def _other_names(model: str) -> Iterator[tuple[str, str | None]]:
    """List other names of `provider/model`, as LiteLLM tries them, each with its owner (None: anyone)."""
    provider, _, name = model.partition("/")
    name = re.sub(f"^{_ROUTES[provider]}", "", name) if provider in _ROUTES else name
    yield name, provider
    yield f"{provider}/{name}", provider
    for prefix in _RESOLD.get(provider, ()):
        yield prefix + name, None
    if provider == "bedrock":
        name = name.rpartition("/")[2] if name.startswith("arn:") else name
        name = re.sub(_BEDROCK_THROUGHPUT, "", name)
        yield name, provider
        yield re.sub(f"^({_BEDROCK_REGIONS})", "", name), provider
