"""EccosDecisionModel: alone, and as the classifier of LangChain's own ModelRouterMiddleware in a real agent."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

pytest.importorskip("langchain_core.decisions", reason="langchain-core 1.8 has decision models")

from hypothesis import given
from hypothesis import strategies as st
from langchain_core.decisions import Choice, Noul, Score
from langchain_core.messages import HumanMessage, SystemMessage
from two_models import two_models

from eccos_integrations.langchain import ChatEccos, EccosDecisionModel
from eccos_integrations.langchain.decision_model import probability_of_best

WHICH = "Which model should answer?"


def classifier(**settings: Any) -> EccosDecisionModel:
    return EccosDecisionModel(router=two_models()[0], **settings)


def ask(state: Any, criteria: dict[str, Any], **settings: Any) -> Any:
    question = Choice(instructions=WHICH, criteria=criteria)
    return classifier(**settings).invoke({"state": state, "questions": {"route": question}})


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("an easy one", "small"),
        ("a hard one", "large"),
        (HumanMessage("a hard one"), "large"),
        ([SystemMessage("You help."), HumanMessage("a hard one")], "large"),
        ({"messages": [HumanMessage("a hard one")]}, "large"),
        ({"ticket": "a hard one", "by": HumanMessage("me")}, "large"),
    ],
)
async def test_it_chooses_as_the_router_does(state: Any, expected: str) -> None:
    response = ask(state, {"small": None, "large": "anything"})
    answer = response.choices["route"]
    assert answer.choice == expected
    assert sum(answer.probabilities.values()) == pytest.approx(1)
    assert answer.confidence == answer.probabilities[expected] > 0.9
    questions = {"route": Choice(instructions=WHICH, criteria={"small": None, "large": None})}
    later = await classifier().ainvoke({"state": state, "questions": questions})
    assert later.choices["route"].choice == expected


def test_criteria_may_name_the_model() -> None:
    answer = ask("a hard one", {"fast": "small, for simple tasks", "strong": {"model": "large"}}).choices["route"]
    assert answer.choice == "strong"
    assert set(answer.probabilities) == {"fast", "strong"}


def test_the_decision_can_be_labelled() -> None:
    model = classifier()
    question = Choice(instructions=WHICH, criteria={"small": None, "large": None})
    response = model.invoke({"state": "easy", "questions": {"route": question}})
    assert response.request_id is not None
    model.router.record(response.request_id, 1.0)
    two = model.invoke({"state": "easy", "questions": {"a": question, "b": question}})
    assert two.request_id is None
    assert set(two.choices) == {"a", "b"}


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (Noul(instructions="Is it urgent?"), "'q' is a Noul"),
        (Score(instructions="How hard?", criteria=["easy", "hard"]), "'q' is a Score"),
        (
            Choice(instructions=WHICH, criteria={"smal": None}),
            r"'smal' names no model .*; did you mean 'small'\?",
        ),
        (Choice(instructions=WHICH, criteria={"x": "small or large"}), "'x' names small, large, must name one"),
        (Choice(instructions=WHICH, criteria={"x": "smaller-model"}), "'x' names no model"),
        (Choice(instructions=WHICH, criteria={"small": None, "x": "small."}), "'x' names 'small', and so does another"),
    ],
)
def test_other_questions_are_refused_by_name(question: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classifier().invoke({"state": "easy", "questions": {"q": question}})


def test_a_model_that_may_not_answer_has_no_probability() -> None:
    answer = ask("a hard one", {"small": None, "large": None}, min_quality=0.5).choices["route"]
    assert answer.probabilities == {"small": 0.0, "large": 1.0}
    with pytest.raises(ValueError, match="no questions"):
        classifier().invoke({"state": "easy", "questions": {}})
    with pytest.raises(ValueError, match="needs a router"):
        EccosDecisionModel()


async def test_it_is_the_classifier_of_langchains_model_router() -> None:
    from langchain.agents import create_agent
    from langchain.agents.middleware import ModelChoice, ModelRouterMiddleware

    router, backend = two_models()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the middleware is beta
        middleware = ModelRouterMiddleware(
            choices={
                "fast": ModelChoice(ChatEccos(router=router, model="small"), "small, for simple tasks"),
                "strong": ModelChoice(ChatEccos(router=router, model="large"), "large, for all others"),
            },
            instructions=WHICH,
            classifier=EccosDecisionModel(router=router),
        )
    agent = create_agent(ChatEccos(router=router), middleware=[middleware])
    state = agent.invoke({"messages": [HumanMessage("a hard one")]})
    assert state["messages"][-1].text == "from large"
    assert state["model_route"].choice == "strong"
    later = await agent.ainvoke({"messages": [HumanMessage("an easy one")]})
    assert later["messages"][-1].text == "from small"
    assert [model for model, _ in backend.calls] == ["large", "small"]


# ---------------------------------------------------------------------------------------------------- the probabilities


def test_probabilities_are_the_shares_in_which_each_value_is_the_largest() -> None:
    """Compare with a simulation: that is what calibrated means here."""
    mean, error = np.array([0.5, 0.6, 0.2]), np.array([0.2, 0.1, 0.3])
    draws = np.random.default_rng(0).normal(mean, error, size=(200_000, 3))
    share = np.bincount(draws.argmax(axis=1), minlength=3) / len(draws)
    assert probability_of_best(mean, error) == pytest.approx(share, abs=0.01)


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(0, 1)), min_size=1, max_size=6), st.floats(1e-6, 1e3))
def test_probabilities_add_up_and_know_no_unit(values: list[tuple[float, float]], scale: float) -> None:
    mean, error = np.array(values).T
    found = probability_of_best(mean, error)
    assert found.sum() == pytest.approx(1)
    assert (found >= 0).all()
    assert probability_of_best(mean * scale, error * scale) == pytest.approx(found, abs=1e-3)


def test_certain_values_leave_no_doubt() -> None:
    assert probability_of_best(np.array([1.0, 2.0]), np.zeros(2)) == pytest.approx([0, 1], abs=1e-6)
    assert probability_of_best(np.array([1.0, 1.0]), np.zeros(2)) == pytest.approx([0.5, 0.5])
