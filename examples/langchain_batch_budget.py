"""Answer a batch of questions with LangChain under three budgets. Each batch is one assignment. Runs offline.

python examples/langchain_batch_budget.py
"""

from __future__ import annotations

from collections import Counter

from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField

from eccos_core.errors import InfeasibleError
from eccos_core.pocket import pool_config_path
from eccos_integrations.langchain import ChatEccos

QUESTIONS = [{"question": f"What is {a} + {b}?"} for a, b in zip(range(3, 43), range(57, 97), strict=True)]


def main() -> None:
    model = ChatEccos(config=pool_config_path()).configurable_fields(budget_usd=ConfigurableField(id="budget"))
    chain = ChatPromptTemplate.from_template("{question}") | model

    least = 0.0
    try:
        chain.batch(QUESTIONS, config={"configurable": {"budget": 1e-9}})
    except InfeasibleError as error:  # no model was called, and the error says what is possible
        print(error)
        least = error.attainable

    for budget in (1.1 * least, 2.5 * least, 6 * least):
        answers = chain.batch(QUESTIONS, config={"configurable": {"budget": budget}})
        asked = Counter(answer.response_metadata["model_name"] for answer in answers)
        quality = sum(answer.response_metadata["predicted_quality"] for answer in answers) / len(answers)
        spent = sum(answer.response_metadata["cost_usd"] for answer in answers)
        print(f"budget {budget:.6f} USD: spent {spent:.6f}, predicted quality {quality:.2f}, {dict(asked)}")


if __name__ == "__main__":
    main()
