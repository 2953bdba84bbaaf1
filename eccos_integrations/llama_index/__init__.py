"""eccos for LlamaIndex (llama-index-core 0.14): the whole pool as one LLM, and a selector that chooses by numbers.

    from eccos_integrations.llama_index import EccosLLM

    Settings.llm = EccosLLM(config="eccos.yaml")
    index.as_query_engine().query("...")

`EccosLLM` is an LLM, `EccosSelector` chooses among the choices of a router query engine or router retriever,
`router_query_engine` builds such an engine with one query engine per model, `EvaluationRecorder` turns evaluations into
labels, `EccosEmbedding` embeds with the bundled encoder. These classes only translate; every decision is made in
`eccos_core`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from eccos_core.errors import MissingDependencyError

if TYPE_CHECKING:
    from eccos_integrations.llama_index.embedding import EccosEmbedding
    from eccos_integrations.llama_index.engines import router_query_engine
    from eccos_integrations.llama_index.evaluation import EvaluationRecorder
    from eccos_integrations.llama_index.llm import EccosLLM
    from eccos_integrations.llama_index.selector import EccosSelection, EccosSelector, ModelChoice

_HOMES = {
    "EccosEmbedding": "embedding",
    "EccosLLM": "llm",
    "EccosSelection": "selector",
    "EccosSelector": "selector",
    "EvaluationRecorder": "evaluation",
    "ModelChoice": "selector",
    "router_query_engine": "engines",
}

__all__ = [
    "EccosEmbedding",
    "EccosLLM",
    "EccosSelection",
    "EccosSelector",
    "EvaluationRecorder",
    "ModelChoice",
    "router_query_engine",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "llama_index":
            raise
        install = "pip install 'eccos[llama-index]'"
        raise MissingDependencyError("llama-index-core", "the LlamaIndex integration", install) from error
