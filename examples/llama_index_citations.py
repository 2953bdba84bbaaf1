"""Answer with sources, by LlamaIndex's engine (docs: examples/query_engine/citation_query_engine) on a pool."""

from __future__ import annotations

from llama_index.core import Document, Settings, VectorStoreIndex
from llama_index.core.query_engine import CitationQueryEngine
from llama_index_offline import offline_pool

from eccos_integrations.llama_index import EccosEmbedding, EccosLLM

TEXTS = {
    "Vienna": "Vienna is the capital of Austria. The Danube flows through the city, which has 2 million people.",
    "Lima": "Lima is the capital of Peru. The Rímac flows through the city, which has 10 million people.",
    "Oslo": "Oslo is the capital of Norway. It lies at the head of a fjord and has 700 thousand people.",
}
QUESTION = "Which river flows through Vienna?"


def main() -> None:
    with offline_pool({f"Query: {QUESTION}": "[[say The Danube flows through Vienna [1].]]"}) as config:
        Settings.llm = EccosLLM(config=config)
        Settings.embed_model = EccosEmbedding()

        documents = [Document(text=text, metadata={"city": city}) for city, text in TEXTS.items()]
        index = VectorStoreIndex.from_documents(documents)
        query_engine = CitationQueryEngine.from_args(index, similarity_top_k=3, citation_chunk_size=512)
        response = query_engine.query(QUESTION)

        print(response)
        for node in response.source_nodes:
            print(f"{node.score:.2f} {node.get_content().strip()[:80]}")
        assert str(response) == "The Danube flows through Vienna [1]."
        assert response.source_nodes[0].node.metadata["city"] == "Vienna"


if __name__ == "__main__":
    main()
