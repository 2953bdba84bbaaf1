import numpy as np
import pytest

from eccos_core.domain import Model
from eccos_core.errors import InputError
from eccos_core.routing.pricing import cost_usd, output_limit

PLAIN = Model("plain", 1e-6, 2e-6)
CACHING = Model("caching", 4e-6, 8e-6, usd_per_cached_input_token=1e-6, max_output_tokens=50)


def test_cost_is_tokens_times_price() -> None:
    cost = cost_usd([PLAIN, CACHING], np.array([100.0, 10.0]), np.array([[10.0, 10.0], [0.0, 1.0]]))
    np.testing.assert_allclose(cost, [[100e-6 + 20e-6, 400e-6 + 80e-6], [10e-6, 40e-6 + 8e-6]])


def test_cached_input_is_charged_at_the_cached_price_where_there_is_one() -> None:
    cost = cost_usd([PLAIN, CACHING], np.array([100.0]), np.zeros((1, 2)), cached_tokens=np.array([60.0]))
    np.testing.assert_allclose(cost, [[100e-6, 40 * 4e-6 + 60 * 1e-6]])


def test_output_is_limited_by_the_request_and_by_the_model() -> None:
    limit = output_limit([PLAIN, CACHING], [{"max_tokens": 80}, {"max_completion_tokens": 20}, {}])
    np.testing.assert_array_equal(limit, [[80, 50], [20, 20], [np.inf, 50]])


@pytest.mark.parametrize("price", [-1e-9, float("nan"), float("inf")])
def test_a_price_that_is_no_price_is_refused(price: float) -> None:
    with pytest.raises(InputError, match="usd_per_output_token"):
        Model("odd", 0.0, price)
