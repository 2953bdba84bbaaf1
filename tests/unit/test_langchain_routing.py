"""EccosRouter, route_to and FeedbackRecorder over a scripted backend."""

from __future__ import annotations

import asyncio
from collections import Counter
from operator import itemgetter
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableBranch, RunnableLambda, RunnableParallel
from two_models import two_models

from eccos_core.domain import Decision
from eccos_core.errors import InfeasibleError, InputError
from eccos_integrations.langchain import ChatEccos, EccosRouter, FeedbackRecorder

QUESTIONS = ["easy", "hard 1", "hard 2"]


def chooser(**settings: Any) -> EccosRouter:
    return EccosRouter(router=two_models()[0], **settings)


# ------------------------------------------------------------------------------------------------ the decision


@pytest.mark.parametrize(
    "asked",
    [
        "a hard one",
        ChatPromptTemplate.from_template("{q}").invoke({"q": "a hard one"}),
        [HumanMessage("a hard one")],
        [("user", "a hard one")],
        HumanMessage("a hard one"),
        {"messages": [HumanMessage("a hard one")]},
        {"question": "a hard one", "documents": []},
    ],
)
def test_any_input_of_a_chain_gives_a_decision(asked: Any) -> None:
    decision = chooser().invoke(asked)
    assert isinstance(decision, Decision)
    assert decision.model == "large"
    assert asyncio.run(chooser().ainvoke(asked)).model == "large"


def test_an_input_with_several_texts_says_which_one_is_the_question() -> None:
    several = {"context": "easy", "question": "a hard one"}
    with pytest.raises(ValueError, match=r"which of 'context', 'question' is the question\?"):
        chooser().invoke(several)
    assert chooser(question="question").invoke(several).model == "large"
    assert chooser(question=itemgetter("context")).invoke(several).model == "small"
    with pytest.raises(ValueError, match="the input is a int"):
        chooser().invoke(3)


async def test_a_batch_is_decided_jointly() -> None:
    router = chooser(quality_floor=0.63)
    assert Counter(each.model for each in router.batch(QUESTIONS)) == {"small": 2, "large": 1}
    assert Counter(each.model for each in await router.abatch(QUESTIONS)) == {"small": 2, "large": 1}
    assert Counter(each.model for _, each in router.batch_as_completed(QUESTIONS)) == {"small": 2, "large": 1}
    fine, empty = router.batch(["easy", []], return_exceptions=True)
    assert isinstance(fine, Decision)
    assert isinstance(empty, ValueError)
    with pytest.raises(InfeasibleError):
        chooser(quality_floor=0.99).batch(QUESTIONS)


def test_it_composes_with_the_other_runnables() -> None:
    router = chooser()
    both = RunnableParallel(decision=router, question=RunnableLambda(lambda given: given)).invoke("a hard one")
    assert both["decision"].model == "large"
    branch = RunnableBranch(
        (RunnableLambda(lambda given: router.invoke(given).model == "small"), RunnableLambda(lambda _: "cheap")),
        RunnableLambda(lambda _: "dear"),
    )
    assert branch.batch(["easy", "hard"]) == ["cheap", "dear"]
    assert (ChatPromptTemplate.from_template("{q}") | router | (lambda d: d.model)).invoke({"q": "easy"}) == "small"


def test_a_decision_made_before_is_what_the_chat_model_does() -> None:
    router, backend = two_models()
    decision = EccosRouter(router=router, quality_floor=0.93).invoke("easy")
    message = ChatEccos(router=router).invoke("easy", decision=decision)
    assert message.response_metadata["decision_id"] == decision.id
    assert [model for model, _ in backend.calls] == ["large"]


# ------------------------------------------------------------------------------------------------ route_to


def branches() -> dict[str, Any]:
    return {"small": lambda given: f"small: {given}", "large": RunnableLambda(lambda given: f"large: {given}")}


async def test_each_input_goes_to_the_branch_of_its_model() -> None:
    routed = chooser(quality_floor=0.85).route_to(branches())
    assert routed.invoke("easy") == "small: easy"
    assert await routed.ainvoke("a hard one") == "large: a hard one"
    assert routed.batch(["easy", "hard", "easy 2"]) == ["small: easy", "large: hard", "small: easy 2"]
    assert await routed.abatch(["easy", "hard"]) == ["small: easy", "large: hard"]
    assert dict(routed.batch_as_completed(["easy", "hard"])) == {0: "small: easy", 1: "large: hard"}
    assert {place: out async for place, out in routed.abatch_as_completed(["hard"])} == {0: "large: hard"}


async def test_branches_get_one_batch_each_and_the_batch_is_decided_jointly() -> None:
    seen: list[tuple[str, list[str]]] = []

    class Branch(RunnableLambda):  # type: ignore[type-arg]
        def batch(self, inputs: list[Any], *args: Any, **kwargs: Any) -> list[Any]:
            seen.append((str(self.name), inputs))
            return super().batch(inputs, *args, **kwargs)

    routed = chooser(quality_floor=0.63).route_to(
        {name: Branch(lambda given, name=name: name, name=name) for name in ("small", "large")}
    )
    answers = routed.batch(QUESTIONS)
    assert Counter(answers) == {"small": 2, "large": 1}
    assert sorted((name, len(inputs)) for name, inputs in seen) == [("large", 1), ("small", 2)]
    assert Counter((RunnableLambda(lambda q: q) | routed).batch(QUESTIONS)) == {"small": 2, "large": 1}
    assert Counter(await routed.abatch(QUESTIONS, config={"max_concurrency": 1})) == {"small": 2, "large": 1}


async def test_it_streams_what_the_branch_streams() -> None:
    router, _ = two_models()
    chain = ChatPromptTemplate.from_template("{question}") | ChatEccos(router=router, model="large") | StrOutputParser()
    routed = EccosRouter(router=router).route_to({"small": lambda _: "no", "large": chain})
    pieces = list(routed.stream({"question": "a hard one"}))
    assert [piece for piece in pieces if piece] == ["from", " large"]
    assert [piece async for piece in routed.astream({"question": "hard"}) if piece] == ["from", " large"]


def test_an_error_of_a_branch_stands_in_its_place() -> None:
    def fail(given: str) -> str:
        raise RuntimeError(given)

    routed = chooser(quality_floor=0.85).route_to({"small": lambda given: given, "large": fail})
    fine, broken, empty = routed.batch(["easy", "hard", ""], return_exceptions=True)
    assert fine == "easy"
    assert isinstance(broken, RuntimeError)
    assert isinstance(empty, ValueError)
    with pytest.raises(RuntimeError, match="hard"):
        routed.batch(["easy", "hard"])


def test_only_models_with_a_branch_are_chosen_and_unknown_names_are_refused() -> None:
    assert chooser().route_to({"small": lambda _: "s"}).invoke("a hard one") == "s"
    with pytest.raises(ValueError, match="did you mean 'small'"):
        chooser().route_to({"smal": lambda _: "s"})
    with pytest.raises(ValueError, match="no branch for any model that may be chosen: large"):
        chooser(allow="large").route_to({"small": lambda _: "s"})


# ------------------------------------------------------------------------------------------------ feedback


class Labels:
    """What was recorded: a history that remembers outcomes."""

    def __init__(self) -> None:
        self.added: list[tuple[str, float]] = []

    def add(self, outcomes: Any, vectors: Any) -> int:
        self.added += [(each.model, each.quality) for each in outcomes]
        return len(outcomes)

    def nearest(self, vectors: Any, k: int) -> Any:
        raise AssertionError("nobody asks")

    def table(self) -> Any:
        raise AssertionError("nobody asks")


def test_feedback_on_a_run_labels_every_answer_in_it() -> None:
    labels = Labels()
    router, _ = two_models(history=labels)
    recorder = FeedbackRecorder(router, lowest=1, highest=5, keys=frozenset({"stars"}))
    chain = ChatPromptTemplate.from_template("{q}") | ChatEccos(router=router) | StrOutputParser()
    run_id = uuid4()
    chain.invoke({"q": "a hard one"}, config={"callbacks": [recorder], "run_id": run_id})
    assert recorder.record_feedback({"run_id": run_id, "key": "stars", "score": 4}) == 1
    assert recorder.record_feedback({"run_id": str(run_id), "key": "other", "score": 4}) == 0
    assert recorder.record_feedback({"run_id": run_id, "key": "stars", "score": None}) == 0
    assert labels.added == [("large", 0.75)]
    with pytest.raises(InputError, match="outside the scale from 1 to 5"):
        recorder.record_feedback({"run_id": run_id, "key": "stars", "score": 6})
    with pytest.raises(InputError, match="Was this recorder among its callbacks"):
        recorder.record_feedback({"run_id": uuid4(), "key": "stars", "score": 3})
    with pytest.raises(InputError, match="no run_id"):
        recorder.record_feedback({"key": "stars", "score": 3})


def test_feedback_on_a_routed_branch_labels_the_decision() -> None:
    labels = Labels()
    router, _ = two_models(history=labels)
    recorder = FeedbackRecorder(router)
    run_id = uuid4()
    routed = EccosRouter(router=router).route_to({"small": lambda _: "s", "large": lambda _: "l"})
    routed.invoke("a hard one", config={"callbacks": [recorder], "run_id": run_id})
    assert recorder.record_feedback({"run_id": run_id, "score": True}) == 1
    assert labels.added == [("large", 1.0)]


@pytest.mark.parametrize(
    ("said", "recorded"),
    [
        (0.25, [0.25]),
        (True, [1.0]),
        ({"key": "k", "score": 0.5}, [0.5]),
        ({"results": [{"score": 0.0}, {"score": None}, {"score": 1}]}, [0.0, 1.0]),
        (None, []),
        ({"score": None}, []),
    ],
)
def test_an_evaluator_in_the_chain_labels_its_answers(said: Any, recorded: list[float]) -> None:
    labels = Labels()
    router, _ = two_models(history=labels)
    recorder = FeedbackRecorder(router)
    message = (ChatEccos(router=router) | recorder.scored_by(lambda _: said)).invoke("easy")
    assert message.content == "from small"
    assert [quality for _, quality in labels.added] == recorded


async def test_an_asynchronous_evaluator_is_awaited_and_nonsense_is_refused() -> None:
    labels = Labels()
    router, _ = two_models(history=labels)
    recorder = FeedbackRecorder(router)

    async def judge(message: Any) -> float:
        return 0.5

    await (ChatEccos(router=router) | recorder.scored_by(judge)).ainvoke("easy")
    assert labels.added == [("small", 0.5)]
    with pytest.raises(InputError, match="a score is a number"):
        recorder.record(await ChatEccos(router=router).ainvoke("easy"), "very good")
    with pytest.raises(InputError, match="no answer of ChatEccos"):
        recorder.record(AIMessage("hello"), 1.0)
    with pytest.raises(InputError, match="has no length"):
        FeedbackRecorder(router, lowest=1, highest=1)


def test_the_decision_stands_in_the_metadata_of_the_branch() -> None:
    class Heard(BaseCallbackHandler):
        metadata: list[Any] = []  # noqa: RUF012 - one per test

        def on_chain_start(self, serialized: Any, inputs: Any, **kwargs: Any) -> None:
            self.metadata.append(kwargs.get("metadata"))

    chooser().route_to(branches()).invoke("easy", config={"callbacks": [Heard()]})
    assert [each["eccos_model"] for each in Heard.metadata if each and "eccos_model" in each] == ["small"]
