"""Which entries of `model_list` answer no questions: wildcards, LiteLLM's own routers, embeddings, images."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from eccos_core.config.litellm_prices import PriceMap
from eccos_core.config.section import Section

_ROUTABLE_MODES: Final = ("chat", "completion", "responses")
EMBEDDING: Final = "embedding"
_OTHER_USES: Final = {
    EMBEDDING: r"embed|\b(bge|e5|gte|minilm|mpnet|colbert|instructor)\b|\b(voyage|jina_ai|infinity)/",
    "rerank": r"rerank|\branker\b",
    "audio": r"whisper|transcri|text-to-speech|speech-to-text|\b(tts|stt|asr)\b|\b(deepgram|elevenlabs|assemblyai)/",
    "images": r"dall-?e|stable-?diffusion|text-to-image|\b(sdxl|flux)\b|\b(recraft|stability|black_forest_labs)/",
    "moderation": r"moderation",
}
"""What a model is for -> words in its name, and providers that have nothing else."""


def why_left_out(
    name: str, model: object, params: Section, info: Section, known: Mapping[str, Any] | None, prices: PriceMap
) -> str | None:
    """Return why an entry cannot answer a question, or None when it can.

    `known` is the entry of LiteLLM's price map, if there is one. A `mode` in the file decides before any name.
    """
    if "*" in name or (isinstance(model, str) and "*" in model):
        return "a wildcard names no model that a request could be routed to; list the models by name"
    if isinstance(model, str) and model.startswith("auto_router/"):
        return "it is a router of LiteLLM; eccos chooses among the other entries itself"
    mode = _mode(params, info, known)
    if mode is not None and mode not in _ROUTABLE_MODES:
        return f"its mode is {mode!r}; only {', '.join(_ROUTABLE_MODES)} models answer questions"
    if mode is not None or not isinstance(model, str) or model.startswith("eccos-local/"):
        return None
    use = find_other_use(f"{name} {model}") or _use_everywhere(model, prices)
    return f"it is for {use}; if it answers questions, say so with model_info.mode: chat" if use else None


def is_embedding(
    name: str, model: object, params: Section, info: Section, known: Mapping[str, Any] | None, prices: PriceMap
) -> bool:
    """Tell whether an entry that is left out of the pool is an embedding model of a provider."""
    if not isinstance(model, str) or "*" in name or "*" in model or model.startswith(("auto_router/", "eccos-local/")):
        return False
    mode = _mode(params, info, known)
    if mode is not None and mode not in _ROUTABLE_MODES:
        return bool(mode == EMBEDDING)
    return EMBEDDING in (find_other_use(f"{name} {model}"), _use_everywhere(model, prices))


def _mode(params: Section, info: Section, known: Mapping[str, Any] | None) -> Any:
    return info.text("mode", None) or params.text("mode", None) or (known or {}).get("mode")


def find_other_use(name: str) -> str | None:
    """Find what the name of a model says that it is for, if it says something other than answering questions."""
    return next((use for use, words in _OTHER_USES.items() if re.search(words, name, re.IGNORECASE)), None)


def _use_everywhere(model: str, prices: PriceMap) -> str | None:
    """Find what every provider that has a model of this name uses it for, if it is not answering questions."""
    modes = prices.modes(model)
    return " and ".join(sorted(modes)) if modes and not modes & {*_ROUTABLE_MODES, "None"} else None
