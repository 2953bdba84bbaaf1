"""Extract structured data with LangChain. Only models that can follow your schema answer.

python examples/langchain_extraction.py
"""

from __future__ import annotations

from langchain_core.prompts import ChatPromptTemplate
from langchain_served import served_pool
from pydantic import BaseModel, Field

from eccos_integrations.langchain import ChatEccos


class Person(BaseModel):
    """Information about a person."""

    name: str = Field(description="The name of the person")
    height_in_meters: float | None = Field(default=None, description="The height of the person")


def main() -> None:
    with served_pool() as configuration:
        model = ChatEccos(config=configuration)
        extractor = ChatPromptTemplate.from_template("Extract: {text}") | model.with_structured_output(Person)
        print(extractor.batch([{"text": "Alan is 1.83 m tall"}, {"text": "Grace wrote a compiler"}]))

        # with `include_raw` you also get the message, which says who answered
        both = model.with_structured_output(Person, method="json_schema", include_raw=True).invoke(
            "Alan is 1.83 m tall"
        )
        print(both["parsed"], "from", both["raw"].response_metadata["model_name"])


if __name__ == "__main__":
    main()
