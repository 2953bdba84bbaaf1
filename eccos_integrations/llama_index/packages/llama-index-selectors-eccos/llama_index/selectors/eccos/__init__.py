"""Select the query engine or retriever that is good enough for the query and costs least."""

from eccos_integrations.llama_index import (
    EccosSelection,
    EccosSelector,
    ModelChoice,
    router_query_engine,
    router_retriever,
)

__all__ = ["EccosSelection", "EccosSelector", "ModelChoice", "router_query_engine", "router_retriever"]
