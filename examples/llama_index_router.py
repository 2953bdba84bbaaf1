"""Choose query engines with eccos in LlamaIndex's router (docs: examples/query_engine/RouterQueryEngine).

No model is asked which engine to take. Recorded outcomes of similar questions decide. An evaluator then scores the
answer, and the router learns from the score.
"""

from __future__ import annotations

from llama_index.core import Document, Settings, VectorStoreIndex
from llama_index.core.evaluation import CorrectnessEvaluator
from llama_index.core.query_engine import RouterQueryEngine
from llama_index.core.tools import QueryEngineTool
from llama_index_offline import offline_pool

from eccos_integrations.llama_index import (
    EccosEmbedding,
    EccosLLM,
    EccosSelector,
    EvaluationRecorder,
    router_query_engine,
)

EASY = "Which river flows through Lima?"
HARD = "By how many percent does the population of Lima exceed 40 thousand, computed?"
SCRIPT = {
    f"Query: {EASY}": "[[say The Rímac.]]",
    f"Query: {HARD}": "[[say By 24,900 percent.]]",
    "## User Query": "[[say 4.0\nThe river is right.]]",
}


def main() -> None:
    with offline_pool(SCRIPT) as config:
        llm = Settings.llm = EccosLLM(config=config, min_quality=0.8)
        Settings.embed_model = EccosEmbedding()
        index = VectorStoreIndex.from_documents([Document(text="Lima has 10 million people; the Rímac is its river.")])

        # build one query engine per model over one index
        query_engine = router_query_engine(index, llm)
        chosen = {}
        for question in (EASY, HARD):
            response = query_engine.query(question)
            assert response.metadata is not None
            selection = response.metadata["selector_result"].selections[0]
            chosen[question] = selection.model
            print(f"{question}\n  {response}\n  {selection.reason}")
        assert chosen == {EASY: "small", HARD: "large"}

        # build the same by hand, as LlamaIndex's documentation does
        tools = [
            QueryEngineTool.from_defaults(
                query_engine=index.as_query_engine(llm=llm.only("small")), name="quick", description="Quick facts."
            ),
            QueryEngineTool.from_defaults(
                query_engine=index.as_query_engine(response_mode="tree_summarize", llm=llm.only("large")),
                name="thorough",
                description="Thorough work.",
            ),
        ]
        query_engine = RouterQueryEngine(
            selector=EccosSelector(router=llm.router, models={"quick": "small", "thorough": "large"}),
            query_engine_tools=tools,
        )
        recorder = EvaluationRecorder(llm.router)
        with recorder:
            response = query_engine.query(EASY)
        result = recorder.recording(CorrectnessEvaluator()).evaluate_response(
            query=EASY, response=response, reference="The Rímac."
        )
        print(f"{result.score} of 5, recorded for {len(recorder.decisions_of(response, EASY))} decisions")
        assert result.score == 4.0
        assert len(recorder.decisions_of(response, EASY)) == 2


if __name__ == "__main__":
    main()
