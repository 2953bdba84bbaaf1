import numpy as np
import pytest

from eccos_core.errors import InputError
from eccos_core.io.step_credit import credit_steps


def test_a_failure_is_zero_and_the_steps_before_it_share_the_blame() -> None:
    labels = credit_steps([True, True, False, True], 1.0, discount=0.5)
    assert labels == [0.75, 0.5, 0.0, 1.0]


def test_a_discount_of_zero_tells_about_each_step_alone() -> None:
    assert credit_steps([True, False, True], 0.0, discount=0.0) == [1.0, 0.0, 1.0]


def test_a_discount_of_one_is_the_quality_of_the_run_after_its_last_failure() -> None:
    assert credit_steps([True, False, True, True], 0.3, discount=1.0) == [0.0, 0.0, 0.3, 0.3]


def test_a_run_without_steps_has_no_labels() -> None:
    assert credit_steps([], 0.5) == []


@pytest.mark.parametrize("seed", range(40))
def test_labels_are_the_discounted_return_and_grow_with_the_quality(seed: int) -> None:
    rng = np.random.default_rng(seed)
    good = (rng.random(rng.integers(1, 30)) < 0.8).tolist()
    quality, discount = rng.random(2).tolist()
    labels = credit_steps(good, quality, discount)
    assert all(0.0 <= label <= 1.0 for label in labels)
    for place, label in enumerate(labels):  # by its definition: from here to the next failure
        ahead = good[place:]
        kept = ahead.index(False) if False in ahead else len(ahead)
        end = 0.0 if False in ahead else quality * discount**kept
        assert label == pytest.approx((1 - discount**kept) + end if kept or False in ahead else quality)
    assert all(low <= high for low, high in zip(credit_steps(good, 0.0, discount), labels, strict=True))


@pytest.mark.parametrize(("quality", "discount", "name"), [(1.1, 0.5, "run_quality"), (0.5, -0.1, "discount")])
def test_numbers_outside_the_unit_interval_are_refused(quality: float, discount: float, name: str) -> None:
    with pytest.raises(InputError, match=f"{name} is"):
        credit_steps([True], quality, discount)
