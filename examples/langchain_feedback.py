"""Turn feedback into labels with LangChain. The router learns from what people and evaluators say of an answer.

python examples/langchain_feedback.py
"""

from __future__ import annotations

from uuid import uuid4

from langchain_core.messages import BaseMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_served import served_pool

from eccos_integrations.langchain import ChatEccos, FeedbackRecorder


def is_short(message: BaseMessage) -> dict[str, object]:
    """Score an answer, as evaluators of LangSmith do."""
    return {"key": "short", "score": len(message.text.split()) < 20}


def main() -> None:
    with served_pool() as configuration:
        model = ChatEccos(config=configuration)
        prompt = ChatPromptTemplate.from_template("{question}")

        # feedback that arrives later for a run, on a scale from 1 to 5
        recorder = FeedbackRecorder(model.router, lowest=1, highest=5)
        run_id = uuid4()
        chain = prompt | model | StrOutputParser()
        print(chain.invoke({"question": "Who wrote Faust?"}, config={"callbacks": [recorder], "run_id": run_id}))
        print("answers labelled:", recorder.record_feedback({"run_id": run_id, "key": "stars", "score": 4}))

        # an evaluator that scores every answer in the chain
        scored = prompt | model | FeedbackRecorder(model.router).scored_by(is_short) | StrOutputParser()
        print(scored.batch([{"question": "Who wrote Hamlet?"}, {"question": "Who wrote Emma?"}]))


if __name__ == "__main__":
    main()
