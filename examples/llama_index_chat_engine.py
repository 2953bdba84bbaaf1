"""Stream LlamaIndex's chat engine with memory (docs: module_guides/deploying/chat_engines) from a pool of models."""

from __future__ import annotations

from llama_index.core import Document, Settings, VectorStoreIndex
from llama_index.core.chat_engine.types import ChatMode
from llama_index.core.memory import ChatMemoryBuffer
from llama_index_offline import offline_pool

from eccos_integrations.llama_index import EccosEmbedding, EccosLLM

SCRIPT = {
    "Which river flows through Lima?": "[[say The Rímac flows through Lima.]]",
    "And how many people live there?": "[[say About 10 million people live in Lima.]]",
}


def main() -> None:
    with offline_pool(SCRIPT) as config:
        Settings.llm = EccosLLM(config=config)
        Settings.embed_model = EccosEmbedding()

        documents = [
            Document(text="Lima is the capital of Peru. The Rímac flows through the city of 10 million people."),
            Document(text="Oslo is the capital of Norway. It has 700 thousand people."),
        ]
        index = VectorStoreIndex.from_documents(documents)
        memory = ChatMemoryBuffer.from_defaults(token_limit=1500)
        chat_engine = index.as_chat_engine(
            chat_mode=ChatMode.CONTEXT, memory=memory, system_prompt="You are a chatbot that talks about cities."
        )
        said = []
        for question in SCRIPT:
            streaming_response = chat_engine.stream_chat(question)
            for token in streaming_response.response_gen:
                print(token, end="", flush=True)
            print()
            said.append(str(streaming_response))

        assert said == ["The Rímac flows through Lima.", "About 10 million people live in Lima."]
        assert [message.role.value for message in memory.get_all()] == ["user", "assistant"] * 2


if __name__ == "__main__":
    main()
