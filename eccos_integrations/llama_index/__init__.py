"""eccos for LlamaIndex (llama-index-core 0.14): the whole pool as one LLM, and a selector that chooses by numbers.

    from eccos_integrations.llama_index import EccosLLM

    Settings.llm = EccosLLM(config="eccos.yaml")
    index.as_query_engine().query("...")

`EccosLLM` is an LLM. `EccosSelector` chooses among the choices of a router query engine or router retriever.
`router_query_engine` builds such an engine with one query engine per model, and `router_retriever` such a retriever.
`CostCountingHandler` sums what answers cost. `EvaluationRecorder` turns evaluations into labels. `EccosEvaluator`
evaluates with a reward model. `EccosEmbedding` embeds with the bundled encoder. These classes only translate. Every
decision is made in `eccos_core`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eccos_integrations._shared.lazy_import import import_public_name

if TYPE_CHECKING:
    from eccos_integrations.llama_index.costs import CostCountingHandler
    from eccos_integrations.llama_index.embedding import EccosEmbedding
    from eccos_integrations.llama_index.engines import router_query_engine, router_retriever
    from eccos_integrations.llama_index.evaluation import EvaluationRecorder
    from eccos_integrations.llama_index.evaluator import EccosEvaluator
    from eccos_integrations.llama_index.llm import EccosLLM
    from eccos_integrations.llama_index.selector import EccosSelection, EccosSelector, ModelChoice

__all__ = [
    "CostCountingHandler",
    "EccosEmbedding",
    "EccosEvaluator",
    "EccosLLM",
    "EccosSelection",
    "EccosSelector",
    "EvaluationRecorder",
    "ModelChoice",
    "router_query_engine",
    "router_retriever",
]

_HOMES = {
    "CostCountingHandler": "costs",
    "EccosEmbedding": "embedding",
    "EccosEvaluator": "evaluator",
    "EccosLLM": "llm",
    "EccosSelection": "selector",
    "EccosSelector": "selector",
    "EvaluationRecorder": "evaluation",
    "ModelChoice": "selector",
    "router_query_engine": "engines",
    "router_retriever": "engines",
}

if not TYPE_CHECKING:  # a type checker finds the names above, and reports a misspelled one

    def __getattr__(name: str) -> Any:
        return import_public_name(
            __name__, name, _HOMES, framework="llama_index", distribution="llama-index-core", extra="llama-index"
        )
