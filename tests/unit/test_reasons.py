import numpy as np
import pytest

from eccos_core.domain import Forecast, Prices, Request
from eccos_core.routing.decisions import build_decisions, format_usd


def forecast(quality: list[list[float]], familiarity: float = 1.0) -> Forecast:
    values = np.array(quality)
    return Forecast(
        models=("a", "b", "c"),
        quality=values,
        quality_se=np.full_like(values, 0.05),
        output_tokens=np.ones_like(values),
        output_tokens_high=np.ones_like(values),
        familiarity=np.full(len(values), familiarity),
    )


COST = np.array([[1.0, 2.0, 4.0]])
NO_SLOT_PRICE = Prices(quality=10.0, slots=np.zeros(3))


def decide(eligible: list[bool], chosen: int = 0, prices: Prices = NO_SLOT_PRICE, familiarity: float = 1.0):  # type: ignore[no-untyped-def]
    made = build_decisions(
        [Request.of("q", id="r")],
        forecast([[0.5, 0.9, 0.7]], familiarity),
        COST,
        np.array([eligible]),
        np.array([chosen]),
        prices,
    )
    return made[0]


def test_fallbacks_follow_cost_less_the_worth_of_quality() -> None:
    decision = decide([True, True, True])
    # scores: a 1 - 5, b 2 - 9, c 4 - 7
    assert decision.model == "a"
    assert decision.fallbacks == ("b", "c")
    assert decision.runner_up == "b"


def test_slot_prices_change_the_order() -> None:
    assert decide([True, True, True], prices=Prices(10.0, np.array([0.0, 5.0, 0.0]))).fallbacks == ("c", "b")


def test_an_ineligible_model_is_never_a_fallback() -> None:
    decision = decide([True, False, True])
    assert decision.fallbacks == ("c",)
    assert decision.runner_up == "c"


def test_the_reason_holds_the_numbers() -> None:
    reason = decide([True, True, True]).reason
    for piece in ("0.50", "1.00 USD", "+0.40", "runner-up"):
        assert piece in reason


def test_the_reason_says_when_there_was_no_choice_and_when_the_request_is_unfamiliar() -> None:
    assert "no other model" in decide([True, False, False]).reason
    assert "nothing in the history" in decide([True, True, True], familiarity=0.05).reason
    assert "nothing in the history" not in decide([True, True, True]).reason


@pytest.mark.parametrize(
    ("amount", "said"),
    [(0, "0 USD"), (1.5, "1.50 USD"), (0.0123456, "0.0123 USD"), (1.234e-6, "0.00000123 USD"), (-0.5, "-0.500 USD")],
)
def test_amounts_are_written_for_people(amount: float, said: str) -> None:
    assert format_usd(amount) == said
