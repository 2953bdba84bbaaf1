"""Tests of means, fixed sequences, and certificates. Validity is checked by adding up exact probabilities."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eccos_core.certification import (
    BettingTest,
    BinomialTest,
    Certificate,
    CertifiedFloor,
    CertifiedGap,
    mean_interval,
    read_certificate,
    run_sequence,
    write_certificate,
)
from eccos_core.errors import CertificateError, InputError

MADE = Certificate(CertifiedFloor(0.7), 0.02, "aa", 500, "bb", 0.75, 0.01, "betting", True, "2026-11-26")


@pytest.mark.parametrize("limit", [0.3, 0.7])
@pytest.mark.parametrize("labels", [1, 7, 12])
def test_under_the_null_hypothesis_the_binomial_test_passes_with_its_level_at_most(limit: float, labels: int) -> None:
    from scipy.stats import binom

    p_values = [BinomialTest().p_value(np.repeat([1.0, 0.0], [k, labels - k]), limit) for k in range(labels + 1)]
    for level in (0.01, 0.05, 0.2):
        wrong = sum(binom.pmf(k, labels, limit) for k, p in enumerate(p_values) if p <= level)
        assert wrong <= level + 1e-12


@pytest.mark.parametrize("growing", [False, True])
@pytest.mark.parametrize("limit", [0.3, 0.7])
def test_the_greatest_wealth_over_all_labels_passes_with_its_level_at_most(limit: float, growing: bool) -> None:
    """All 4,096 sequences of 12 labels whose mean is just the limit, each with its probability."""
    wrong = dict.fromkeys((0.01, 0.05, 0.2), 0.0)
    for labels in itertools.product((0.0, 1.0), repeat=12):
        probability = float(np.prod([limit if one else 1 - limit for one in labels]))
        p_value = BettingTest(growing=growing).p_value(np.array(labels), limit)  # the least over all looks
        for level in wrong:
            wrong[level] += probability * (p_value <= level)
    assert all(share <= level for level, share in wrong.items())


def test_the_wealth_is_the_mean_over_the_stakes_multiplied_out() -> None:
    scores, limit = np.array([1.0, 0.25, 0.5]), 0.4
    stakes = np.geomspace(0.005, 0.99, 32)
    expected = [np.mean([np.prod(1 + stake / limit * (scores[:t] - limit)) for stake in stakes]) for t in (1, 2, 3)]
    assert np.exp(BettingTest(growing=True).log_wealth(scores, limit)) == pytest.approx(expected)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.floats(0.05, 0.95))
def test_more_labels_never_raise_the_p_value_of_the_betting_test(scores: list[float], limit: float) -> None:
    test = BettingTest(growing=True)
    p_values = [test.p_value(np.array(scores[:count]), limit) for count in range(len(scores) + 1)]
    assert p_values == sorted(p_values, reverse=True)
    assert all(0 <= p <= 1 for p in p_values)


@pytest.mark.parametrize("mean", [0.1, 0.5, 0.9])
def test_the_interval_of_a_mean_holds_it_with_its_confidence(mean: float) -> None:
    """All 1,024 sequences of 10 labels, each with its probability."""
    held = 0.0
    for labels in itertools.product((0.0, 1.0), repeat=10):
        low, high = mean_interval(np.array(labels), 0.8)
        assert low <= np.mean(labels) <= high
        held += float(np.prod([mean if one else 1 - mean for one in labels])) * (low <= mean <= high)
    assert held >= 0.8


def test_the_interval_of_a_mean_shrinks_with_labels_and_is_everything_without_any() -> None:
    few, many = (mean_interval(np.resize([1.0, 1.0, 0.0], count)) for count in (30, 3000))
    assert 0 < few[0] < many[0] < 2 / 3 < many[1] < few[1] < 1
    assert many[1] - many[0] < 0.06
    assert mean_interval(np.array([])) == (0.0, 1.0)
    with pytest.raises(InputError, match="confidence is 95, must be between 0 and 1"):
        mean_interval(np.ones(3), 95)


@pytest.mark.parametrize("test", [BinomialTest(), BettingTest(), BettingTest(growing=True)])
def test_the_labels_needed_are_about_those_that_pass(test: BinomialTest | BettingTest) -> None:
    few = np.random.default_rng(1).permutation(np.repeat([1.0, 0.0], [48, 12]))
    assert test.p_value(few, 0.7) > 0.05
    needed = test.labels_needed(few, 0.7, 0.05)
    assert needed is not None
    assert 60 < needed < 400
    pattern = np.resize([1.0, 1.0, 1.0, 1.0, 0.0], needed)
    assert test.p_value(pattern, 0.7) < 0.08
    assert test.p_value(np.resize(pattern, 2 * needed), 0.7) < 0.05


@pytest.mark.parametrize("test", [BinomialTest(), BettingTest(), BettingTest(growing=True)])
def test_a_mean_below_the_limit_needs_no_number_of_labels(test: BinomialTest | BettingTest) -> None:
    assert test.labels_needed(np.array([1.0, 0.0]), 0.7, 0.05) is None


def test_the_sequence_ends_at_the_first_setting_that_fails() -> None:
    good, bad = np.ones(100), np.zeros(100)
    result = run_sequence([good, good, bad, good], 0.7, 0.05, BettingTest())
    assert result.passed == 1
    assert len(result.p_values) == 3


def test_nothing_passes_where_the_safest_setting_fails() -> None:
    assert run_sequence([np.zeros(100), np.ones(100)], 0.7, 0.05, BettingTest()).passed is None


def test_a_gap_is_a_mean_of_paired_differences() -> None:
    claim = CertifiedGap("large", 2.0)
    chosen, large = np.array([1.0, 0.0, 1.0]), np.array([1.0, 1.0, 0.0])
    assert claim.scores(chosen, large).tolist() == [0.5, 0.0, 1.0]
    assert claim.limit == pytest.approx(0.49)


@pytest.mark.parametrize("confidence", [0.0, 1.0, -1.0, float("nan")])
def test_a_confidence_outside_0_and_1_is_refused(confidence: float) -> None:
    for make in (lambda: CertifiedFloor(0.7, confidence), lambda: CertifiedGap("large", 2, confidence)):
        with pytest.raises(InputError, match="confidence is"):
            make()


@pytest.mark.parametrize("claim", [CertifiedFloor(0.7), CertifiedGap("large", 2.0, 0.9)])
def test_a_certificate_is_read_as_it_was_written(claim: CertifiedFloor | CertifiedGap, tmp_path: Path) -> None:
    made = Certificate(claim, 0.02, "aa", 500, "bb", 0.75, 0.01, "betting", True, "2026-11-26")
    write_certificate(made, tmp_path / "certificate.json")
    assert read_certificate(tmp_path / "certificate.json") == made


@pytest.mark.parametrize(
    ("claim", "fingerprint", "says"),
    [
        (CertifiedFloor(0.71), "aa", "asks for mean quality at least 0.71"),
        (CertifiedFloor(0.7, 0.99), "aa", "confidence 0.99"),
        (CertifiedGap("large", 2), "aa", "at most 2 points below always asking large"),
        (CertifiedFloor(0.7), "cc", "is void"),
    ],
)
def test_a_certificate_for_something_else_is_refused(
    claim: CertifiedFloor | CertifiedGap, fingerprint: str, says: str
) -> None:
    with pytest.raises(CertificateError, match=says):
        MADE.require(claim, fingerprint, Path("certificate.json"))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "eccos-certificate", "version": 1}', "\x00"])
def test_a_damaged_certificate_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "certificate.json"
    path.write_text(text)
    with pytest.raises(CertificateError, match=r"certificate\.json: .*Run `eccos certify` again"):
        read_certificate(path)


def test_a_missing_certificate_is_named(tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match="there is no certificate"):
        read_certificate(tmp_path / "certificate.json")
