"""Split a question with LlamaIndex's sub-question engine (docs: examples/query_engine/sub_question_query_engine).

The engine asks the sub-questions at the same time. With `window_s` the router also decides them together.
"""

from __future__ import annotations

import json

from llama_index.core import Document, Settings, VectorStoreIndex
from llama_index.core.query_engine import SubQuestionQueryEngine
from llama_index.core.question_gen import LLMQuestionGenerator
from llama_index.core.tools import QueryEngineTool, ToolMetadata
from llama_index_offline import offline_pool

from eccos_integrations.llama_index import EccosEmbedding, EccosLLM

QUESTION = "Which of Lima and Oslo has more people?"
SUB_QUESTIONS = [
    {"sub_question": "How many people live in Lima?", "tool_name": "lima"},
    {"sub_question": "How many people live in Oslo?", "tool_name": "oslo"},
]
SCRIPT = {
    f"<User Question>\n{QUESTION}": f"[[say {json.dumps({'items': SUB_QUESTIONS})}]]",
    "Query: How many people live in Lima?": "[[say 10 million]]",
    "Query: How many people live in Oslo?": "[[say 700 thousand]]",
    f"Query: {QUESTION}": "[[say Lima, by far.]]",
}


def main() -> None:
    with offline_pool(SCRIPT) as config:
        Settings.llm = EccosLLM(config=config, window_s=0.02)
        Settings.embed_model = EccosEmbedding()

        tools = [
            QueryEngineTool(
                query_engine=VectorStoreIndex.from_documents([Document(text=text)]).as_query_engine(),
                metadata=ToolMetadata(name=name, description=f"Knows about {name.title()}."),
            )
            for name, text in {"lima": "Lima has 10 million people.", "oslo": "Oslo has 700 thousand people."}.items()
        ]
        # without this line LlamaIndex looks for its OpenAI package
        question_gen = LLMQuestionGenerator.from_defaults(llm=Settings.llm)
        query_engine = SubQuestionQueryEngine.from_defaults(
            query_engine_tools=tools, question_gen=question_gen, use_async=True
        )
        response = query_engine.query(QUESTION)

        print(response)
        assert str(response) == "Lima, by far."
        assert any("Response: 10 million" in node.get_content() for node in response.source_nodes)


if __name__ == "__main__":
    main()
