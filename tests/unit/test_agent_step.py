"""The numbers of an agent's step: read from messages, written into the text, encoded, and learned from."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eccos_core.assembly.encoder import build_encoder
from eccos_core.config import StaticConfig
from eccos_core.domain import TOOL_FAILED, Message, Outcome, Request
from eccos_core.encoders import StepEncoder
from eccos_core.encoders.step import encode_steps
from eccos_core.errors import InputError
from eccos_core.io.agent_step import STEP_FEATURES, AgentStep, add_step, read_step, split_step
from eccos_core.io.outcome_tables import table_of
from eccos_core.io.tokens import conversation_text
from eccos_core.predictors import fit_predictor
from eccos_core.testing import WordEncoder

USER: Message = {"role": "user", "content": "fix the test"}
counts = st.integers(0, 10**7).map(float)
steps = st.builds(
    AgentStep,
    **{name: counts for name in STEP_FEATURES if name != "progress"},
    progress=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]),
)


def call(name: str, arguments: str = "{}") -> Message:
    return {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": name, "arguments": arguments}}]}


def result(text: str, **more: Any) -> Message:
    return {"role": "tool", "tool_call_id": "1", "content": text, **more}


def test_a_plain_question_is_no_step_and_the_first_step_of_an_agent_is_one() -> None:
    assert read_step([USER]) is None
    assert read_step([USER], has_tools=True) == AgentStep(context=12)
    text = conversation_text([USER], "agent_step")
    assert text == "fix the test"
    assert split_step(conversation_text([USER], "agent_step", has_tools=True)) == (text, AgentStep(context=12))


def test_a_step_counts_from_the_last_user_message_on() -> None:
    messages = [
        {"role": "user", "content": "hello"},
        call("read_file"),
        result("Error: before"),
        USER,
        call("readFile", '{"path": "a", "line": 1}'),
        result("text of a"),
        call("read_file", '{"line": 1, "path": "b"}'),
        result("text of b"),
        call("read_file", '{"path": "b", "line": 1}'),  # the same call
        result("text of b"),  # and nothing new
        call("run_tests"),
        result("Traceback (most recent call last): ..."),
        call("edit_file"),
        result("it broke", **{TOOL_FAILED: True}),
    ]
    step = read_step(messages)
    assert step is not None
    expected = {"turn": 5, "errors": 2, "repeats": 1, "progress": 0.25, "reads": 3, "writes": 1, "runs": 1}
    assert {name: getattr(step, name) for name in expected} == expected
    assert step.observed == len("it broke")
    assert step.context == sum(len(str(each.get("content") or "")) for each in messages)
    task, found = split_step(conversation_text(messages, "agent_step"))
    assert (task, found) == ("fix the test\n\nhello", step)


@pytest.mark.parametrize("text", ["Error: no file", "ValueError: x", "  exit code: 2", "Traceback", "FAILED tests"])
def test_a_result_that_begins_like_an_error_has_failed(text: str) -> None:
    step = read_step([USER, call("run"), result(text)])
    assert step is not None
    assert step.errors == 1
    told = read_step([USER, call("run"), result(text, **{TOOL_FAILED: False})])
    assert told is not None
    assert told.errors == 0


@pytest.mark.parametrize("text", ["no errors", "errors=0", "exit code: 0", "failure modes are listed", ""])
def test_a_result_that_speaks_of_errors_has_not(text: str) -> None:
    step = read_step([USER, call("run"), result(text)])
    assert step is not None
    assert step.errors == 0


def test_the_mark_of_a_failed_tool_goes_to_no_model() -> None:
    sent = Request((USER, result("no", **{TOOL_FAILED: True}))).addressed_to("small")
    assert sent.messages[1] == result("no")


@given(st.text(), st.none() | steps)
def test_what_is_written_into_a_text_is_read_back(text: str, step: AgentStep | None) -> None:
    task, found = split_step(add_step(text, step))
    if step is None:
        assert found is None
        assert task.startswith(text)
    else:
        assert task == text
        assert found is not None
        assert astuple(found) == pytest.approx(astuple(step), rel=1e-5)


def test_a_line_that_a_user_writes_is_no_step() -> None:
    forged = add_step("easy", AgentStep(turn=9))
    assert split_step(conversation_text([{"role": "user", "content": forged}], "agent_step"))[1] is None
    assert split_step(forged + "!")[1] is None
    assert split_step("[agent step v1] turn=1")[1] is None


# ------------------------------------------------------------------------------------------------------- the encoder


@given(st.lists(steps, min_size=1, max_size=5))
def test_steps_are_unit_vectors(some: list[AgentStep]) -> None:
    vectors = encode_steps(some)
    assert vectors.shape == (len(some), 18)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1)


def test_a_plain_text_keeps_its_vector_and_a_step_is_less_familiar() -> None:
    inner = WordEncoder(["easy", "hard"])
    encoder = StepEncoder(inner, weight=0.36)
    early, late = AgentStep(turn=1), AgentStep(turn=12, errors=4, progress=0)
    plain, first, last, other = encoder.encode(
        ["easy", add_step("easy", early), add_step("easy", late), add_step("hard", early)]
    )
    assert encoder.dimensions == len(plain) == inner.dimensions + 18
    assert plain[: inner.dimensions] == pytest.approx(inner.encode(["easy"])[0])
    assert not plain[inner.dimensions :].any()
    assert plain @ first == pytest.approx(0.8)  # sqrt(1 - w)
    assert first @ last < 0.9  # the same task in another state
    assert first @ other == pytest.approx(0.36)  # the same state of another task
    assert encoder.encode([]).shape == (0, encoder.dimensions)


@pytest.mark.parametrize("weight", [0, 1, -0.5, float("nan")])
def test_a_weight_outside_its_range_is_refused(weight: float) -> None:
    with pytest.raises(InputError, match="must be between 0 and 1"):
        StepEncoder(WordEncoder([]), weight)


def test_the_view_of_a_configuration_decides_about_the_encoder() -> None:
    plain = build_encoder(StaticConfig())
    stepped = build_encoder(StaticConfig(), "agent_step")
    assert stepped.dimensions == plain.dimensions + 18
    assert plain.name in stepped.name != plain.name


@pytest.mark.parametrize("kind", ["kernel", "linear"])
def test_a_predictor_learns_from_the_steps_of_its_outcomes(kind: str) -> None:
    """One task, early and in trouble. Only the numbers tell the two apart, and who can go on from there."""
    rng = np.random.default_rng(0)
    encoder = StepEncoder(WordEncoder(["easy", "hard"]))
    outcomes = []
    for number in range(300):
        trouble = number % 2
        context = float(rng.integers(9999))
        text = add_step("easy", AgentStep(2 + 6 * trouble, 3 * trouble, progress=1 - trouble, context=context))
        for model, chance in (("small", 0.9 - 0.8 * trouble), ("large", 0.9)):
            quality = float(rng.random() < chance)
            outcomes.append(Outcome(str(number), text, model, quality, input_tokens=9, output_tokens=9))
    table = table_of(outcomes)
    predictor = fit_predictor(kind, table, encoder.encode(table.queries))
    asked = [
        add_step("easy", AgentStep(turn=2, context=5000)),
        add_step("easy", AgentStep(turn=8, errors=3, progress=0, context=5000)),
    ]
    forecast = predictor.predict(encoder.encode(asked), np.full(2, 9.0))
    small, large = (forecast.quality[:, predictor.models.index(name)] for name in ("small", "large"))
    assert small[0] > 0.8
    assert small[1] < 0.3
    assert large[1] > 0.8
    stranger = predictor.predict(encoder.encode(["easy"]), np.full(1, 9.0))
    assert stranger.familiarity[0] < forecast.familiarity.min()
