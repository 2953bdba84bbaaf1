"""A router query engine over one index, with one query engine per model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llama_index.core.query_engine import RouterQueryEngine
from llama_index.core.response_synthesizers import TreeSummarize
from llama_index.core.tools.query_engine import QueryEngineTool

from eccos_integrations.llama_index.selector import EccosSelector

if TYPE_CHECKING:
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
