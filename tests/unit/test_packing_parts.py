"""The parts of packing: arms, who may share a call, shares of tokens and cost, and what answers lose."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eccos_core.domain import Completion, Model, Outcome, Request
from eccos_core.errors import InputError
from eccos_core.history import MemoryHistory
from eccos_core.packing import (
    PackArm,
    PackingRule,
    PackLosses,
    build_pack,
    group_key,
    parse_arm,
    reason_alone,
    share_call,
    size_class,
)
from eccos_core.testing import TablePredictor, WordEncoder

SYSTEM = {"role": "system", "content": "Say yes or no."}


def asked(text: str = "Is it?", **fields: Any) -> Request:
    return Request(messages=(SYSTEM, {"role": "user", "content": text}), **fields)


# ------------------------------------------------------------------------------------------------------------- arms


def test_arms_are_written_and_read() -> None:
    assert PackArm("small", 4).name == "small*4"
    assert parse_arm("openai/small@low*16") == PackArm("openai/small@low", 16)
    assert parse_arm("small") is parse_arm("small*1") is parse_arm("*4") is parse_arm("small*x") is None


def test_sizes_are_powers_of_two_up_to_the_most() -> None:
    assert PackingRule(8).sizes == (2, 4, 8)
    assert PackingRule(6).sizes == (2, 4, 6)
    assert PackingRule(2).sizes == (2,)
    assert [size_class(size, (2, 4, 8)) for size in (1, 2, 3, 4, 5, 8)] == [2, 2, 4, 4, 8, 8]


@pytest.mark.parametrize("wrong", [{"most": 1}, {"most": 65}, {"assume_quality_loss": 1.5}, {"cache_from_tokens": -1}])
def test_a_rule_out_of_bounds_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        PackingRule(**wrong)


# ------------------------------------------------------------------------------------------------ who may share a call


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (asked(session_id="s"), "session"),
        (asked(parameters={"tools": [{"type": "function"}]}), "tools"),
        (asked(parameters={"response_format": {"type": "json_object"}}), "response_format"),
        (asked(parameters={"n": 2}), "n"),
        (asked(parameters={"stop": "."}), "stop"),
        (asked(parameters={"logprobs": True}), "logprobs"),
        (Request(messages=({"role": "user", "content": "a"}, {"role": "user", "content": "b"})), "one user message"),
        (Request(messages=(SYSTEM, {"role": "user", "content": [{"type": "text", "text": "a"}]})), "more than a text"),
        (Request(messages=(SYSTEM,)), "one user message"),
    ],
)
def test_what_cannot_share_a_call_says_why(request_: Request, why: str) -> None:
    assert why in str(reason_alone(request_))
    assert group_key(request_) is None
    with pytest.raises(InputError, match="alone"):
        build_pack([request_, asked()])


@pytest.mark.parametrize(
    "other",
    [
        {"parameters": {"temperature": 0.5}},
        {"tenant": "hospital"},
        {"allow": frozenset({"small"})},
        {"deny": frozenset({"small"})},
        {"min_quality": 0.5},
        {"required_tags": frozenset({"eu"})},
    ],
)
def test_other_rules_make_another_group(other: dict[str, Any]) -> None:
    assert group_key(asked("a")) == group_key(asked("b"))
    assert group_key(asked(**other)) != group_key(asked())
    with pytest.raises(InputError):
        build_pack([asked(**other), asked()])


def test_a_call_across_tenants_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"different tenants \(bank, hospital\).*Pack those of each tenant alone"):
        build_pack([asked(tenant="hospital"), asked(tenant="bank")])


def test_a_pack_has_room_for_every_answer() -> None:
    pack = build_pack([asked(parameters={"max_tokens": 10})] * 4)
    assert 40 < pack.request.parameters["max_tokens"] < 120


# ---------------------------------------------------------------------------------------------------------- shares


@given(
    st.integers(0, 10_000),
    st.integers(0, 10_000),
    st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=2, max_size=16),
    st.floats(0, 10),
)
def test_shares_add_up_to_the_call(inputs: int, outputs: int, own: list[tuple[int, int]], cost: float) -> None:
    call = Completion(
        "", "small", inputs, outputs, cost, 1.5, cached_input_tokens=inputs // 3, reasoning_tokens=outputs // 2
    )
    model = Model("small", 1e-6, 4e-6)
    shares = share_call(call, model, [each for each, _ in own], [each for _, each in own], "small*4")
    assert sum(each.input_tokens for each in shares) == inputs
    assert sum(each.output_tokens for each in shares) == outputs
    assert sum(each.cached_input_tokens for each in shares) == inputs // 3
    assert sum(each.reasoning_tokens for each in shares) == outputs // 2
    assert math.fsum(each.cost_usd for each in shares) == pytest.approx(cost)
    assert all(each.input_tokens >= 0 and each.output_tokens >= 0 and each.cost_usd >= 0 for each in shares)
    assert {each.model for each in shares} == {"small*4"}


def test_who_asks_and_gets_more_pays_more() -> None:
    call = Completion("", "small", 400, 40, 1.0, 1.5)
    few, many = share_call(call, Model("small", 1e-6, 4e-6), [50, 250], [5, 25], "small*2")
    assert (few.input_tokens, many.input_tokens) == (100, 300), "50 of the shared 100 tokens each, and their own"
    assert (few.output_tokens, many.output_tokens) == (10, 30)
    assert few.cost_usd == pytest.approx(140 / 560)


# ---------------------------------------------------------------------------------------------------------- losses


def known_losses(differences: dict[PackArm, list[float]]) -> PackLosses:
    losses = PackLosses()
    for arm, values in differences.items():
        for question, value in enumerate(values):
            losses.add(arm, question, value)
    return losses


def test_nothing_is_known_before_thirty_answers_unless_assumed() -> None:
    losses = known_losses({PackArm("small", 4): [0.0] * 29})
    assert losses.of(["small"], PackingRule(8)) == {}
    assumed = losses.of(["small", "large"], PackingRule(8, assume_quality_loss=0.02))
    assert {arm.name: loss.quality for arm, loss in assumed.items()} == {
        f"{model}*{size}": 0.02 for model in ("small", "large") for size in (2, 4, 8)
    }
    assert all(loss.answers == 0 for loss in assumed.values())


def test_a_measured_loss_is_its_mean_plus_one_standard_error() -> None:
    values = [0.0] * 40 + [-1.0] * 10
    loss = known_losses({PackArm("small", 4): values}).measured(PackArm("small", 4))
    assert loss is not None
    mean, variance = -10 / 52, 11 / 52 - (10 / 52) ** 2
    assert loss.quality == pytest.approx(-mean + math.sqrt(variance / 52))
    assert loss.answers == 50


def test_smaller_packs_take_a_larger_ones_loss_and_larger_ones_never_lose_less() -> None:
    losses = known_losses({PackArm("small", 4): [0.0] * 20 + [-1.0] * 20, PackArm("small", 8): [0.0] * 400})
    found = losses.of(["small"], PackingRule(8))
    assert found[PackArm("small", 2)].quality == found[PackArm("small", 4)].quality
    assert found[PackArm("small", 8)].quality == found[PackArm("small", 4)].quality > 0.5
    only_two = known_losses({PackArm("small", 2): [0.0] * 40}).of(["small"], PackingRule(8))
    assert list(only_two) == [PackArm("small", 2)], "what two lose says nothing of eight"


def test_losses_are_read_from_a_history_as_it_grows() -> None:
    encoder = WordEncoder([])
    history, predictor = MemoryHistory(encoder.name, 1), TablePredictor(["small"], np.array([[0.5]]))
    losses = PackLosses()

    def add(numbers: range, **quality: float) -> None:
        outcomes = [Outcome(str(n), f"question {n}", model, q) for n in numbers for model, q in quality.items()]
        history.add(outcomes, np.ones((len(outcomes), 1), np.float32))
        losses.read(history, predictor)

    add(range(20), **{"small": 1.0, "small*4": 1.0})
    assert losses.measured(PackArm("small", 4)) is None
    add(range(20, 40), **{"small*4": 0.5})  # nobody graded small alone: its forecast is 0.5
    loss = losses.measured(PackArm("small", 4))
    assert loss is not None
    assert (loss.answers, loss.quality) == (40, pytest.approx(math.sqrt(1 / 42 / 42)))
    add(range(20, 40), small=1.0)  # now somebody did
    again = losses.measured(PackArm("small", 4))
    assert again is not None
    assert again.quality > 0.2
    assert losses.measured(PackArm("other", 4)) is None
