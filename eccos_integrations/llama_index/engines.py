"""A router query engine with one query engine per model, and a router retriever with one retriever per model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llama_index.core.query_engine import RouterQueryEngine
from llama_index.core.response_synthesizers import TreeSummarize
from llama_index.core.retrievers import RouterRetriever
from llama_index.core.tools.query_engine import QueryEngineTool
from llama_index.core.tools.retriever_tool import RetrieverTool

from eccos_integrations.llama_index.selector import EccosSelector

if TYPE_CHECKING:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.indices.base import BaseIndex

    from eccos_integrations.llama_index.llm import EccosLLM


def router_query_engine(
    index: BaseIndex[Any],
    llm: EccosLLM,
    models: Sequence[str] | None = None,
    *,
    max_outputs: int = 1,
    enough: float | None = None,
    **engine: Any,
) -> RouterQueryEngine:
    """Build a `RouterQueryEngine` whose choices are models, each with a query engine of its own over one index.

        llm = EccosLLM(config="eccos.yaml")
        router_query_engine(index, llm, similarity_top_k=3).query("...")

    `models` are the names to choose among (None: all that `llm` may ask). The query alone decides, before anything is
    retrieved. `max_outputs` and `enough` are those of `EccosSelector`, and `llm` combines several answers. `engine` is
    what `index.as_query_engine` takes. When you query the engine, it raises `ValueError` for no models, and for a
    model that is not in the pool.
    """
    names = [model.name for model in llm.candidates()] if models is None else list(models)
    tools = [
        QueryEngineTool.from_defaults(
            index.as_query_engine(llm=llm.only(name), **engine), name=name, description=f"Answers with {name}."
        )
        for name in names
    ]
    selector = EccosSelector(
        router=llm.router,
        models=names,
        max_outputs=max_outputs,
        enough=enough,
        min_quality=llm.min_quality,
        tenant=llm.tenant,
    )
    summarizer = TreeSummarize(llm=llm, streaming=engine.get("streaming", False))
    return RouterQueryEngine(selector, tools, llm=llm, summarizer=summarizer)


def router_retriever(
    retrievers: Mapping[str, BaseRetriever],
    llm: EccosLLM,
    *,
    max_outputs: int = 1,
    enough: float | None = None,
) -> RouterRetriever:
    """Build a `RouterRetriever` that retrieves as much as the query needs, by the outcomes of similar queries.

        narrow, wide = index.as_retriever(similarity_top_k=1), index.as_retriever(similarity_top_k=8)
        router_retriever({"small": narrow, "large": wide}, llm).retrieve("...")

    `retrievers` maps a model of the pool, or a pipeline with an entry and recorded outcomes there, to the retriever
    that goes with it. The query alone decides. `max_outputs` and `enough` are those of `EccosSelector`. Several
    selected retrievers give their nodes together. Raises `ValueError` without retrievers. When you retrieve, it raises
    `ValueError` for a name that is not in the pool.
    """
    if not retrievers:
        raise ValueError("router_retriever needs at least one retriever: router_retriever({'small': ...}, llm)")
    tools = [
        RetrieverTool.from_defaults(retriever, name=name, description=f"Retrieves for {name}.")
        for name, retriever in retrievers.items()
    ]
    selector = EccosSelector(
        router=llm.router,
        models=list(retrievers),
        max_outputs=max_outputs,
        enough=enough,
        min_quality=llm.min_quality,
        tenant=llm.tenant,
    )
    return RouterRetriever(selector, tools, llm=llm)
