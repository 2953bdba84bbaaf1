"""Use a whole pool as one LangChain chat model. Runs offline, on the four tiny models of eccos.

python examples/langchain_quick_start.py
"""

from __future__ import annotations

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from eccos_core.pocket import pool_config_path
from eccos_integrations.langchain import ChatEccos


def main() -> None:
    model = ChatEccos(config=pool_config_path())  # put the path of your own eccos.yaml here
    for question in ("What is the capital of France?", "What is 17 + 25?"):
        message = model.invoke(question)
        metadata = message.response_metadata
        print(f"{question} {message.content}")
        print(f"  {metadata['model_name']}, {metadata['cost_usd']:.8f} USD. {metadata['reason']}")

    # use it in any chain. Streaming works too
    chain = ChatPromptTemplate.from_template("What is the capital of {country}?") | model | StrOutputParser()
    print("".join(chain.stream({"country": "Italy"})))


if __name__ == "__main__":
    main()
