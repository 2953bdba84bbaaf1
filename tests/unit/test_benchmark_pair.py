"""Decoding with two models (`benchmarks/pair_decoding.py`): what is charged, and that a replay equals live decoding."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from eccos_core.backends.local.numpy_llama import load_numpy_llama
from eccos_core.grading import grader_for
from eccos_core.pocket import pocket_path
from eccos_core.pocket.questions import generate_questions

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "pair_decoding.py"
QUESTIONS = generate_questions(24, seed=5)


def load_benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pair_decoding_under_test", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


pairs = load_benchmark()


class ProjectionGate:
    """Needs the large model where a fixed random projection of the hidden state says so."""

    def __init__(self) -> None:
        self.direction = np.random.default_rng(0).normal(size=48)

    def need(self, hidden: Any) -> Any:
        return 1 / (1 + np.exp(-(hidden @ self.direction)))


@pytest.fixture(scope="module")
def pair() -> Any:
    loaded = []
    for name in ("pocket-small", "pocket-large"):
        model, tokenizer, _ = load_numpy_llama(pocket_path(name))
        loaded.append(pairs.HiddenLlama(model.config, model._weights))
    return pairs.Pair(*loaded, tokenizer)


@pytest.fixture(scope="module")
def tree(pair: Any) -> Any:
    graders = {name: grader_for(name) for name in ("exact", "number")}

    def grade(row: int, answer: str) -> float:
        question = QUESTIONS[row]
        return float(graders[question.grader].grade(answer, question.reference, question.query))

    return pairs.grow_tree(pair, [question.query for question in QUESTIONS], grade, at_once=7)


def greedy(pair: Any, model: Any, query: str) -> tuple[int, ...]:
    """What one model writes without any cache."""
    ids, written = pair.prompt_ids(query), []
    while not written or (written[-1] != pair.tokenizer.eos_token_id and len(written) < pairs.LONGEST_ANSWER):
        context = np.array([[*ids, *written]])
        places = np.arange(context.shape[1])[None]
        logits, _ = model.forward(context, places, np.ones(context.shape, dtype=bool), None)
        written.append(int(logits[0].argmax()))
    return tuple(written)


# ------------------------------------------------------------------------------------------------------ accounting


def test_the_large_model_is_charged_for_all_it_must_read() -> None:
    asked = np.array(
        [
            [False, False, False],  # never asked: nothing
            [True, False, False],  # its prefill of 10 tokens gives the first token
            [False, False, True],  # the prefill, and two tokens of the small model to catch up on
            [True, True, True],  # as if alone
        ]
    )
    work = pairs.count_work(np.full(4, 10), asked, np.full(4, 3))
    assert work.large_tokens.tolist() == [0, 10, 12, 12]
    assert work.large_written.tolist() == [0, 1, 1, 3]
    assert work.small_tokens.tolist() == [12, 12, 12, 12]


def test_compute_is_two_operations_for_each_parameter_and_token() -> None:
    work = pairs.count_work(np.array([10]), np.array([[False, True, False]]), np.array([3]))
    assert work.flops(100, 1000, 7).tolist() == [2 * (100 * 12 + 7 * 3 + 1000 * 11)]


def test_a_price_charges_each_token_that_the_large_model_reads_once() -> None:
    asked = np.array([[False, True, False], [True, True, True], [False, False, False]])
    work = pairs.count_work(np.full(3, 10), asked, np.full(3, 3))
    found = work.usd(np.full(3, 10), (1.0, 2.0), (100.0, 1000.0))
    # the second row reads the prompt, and writes all: what a call of each model costs
    assert found.tolist() == [16 + 100 * 11 + 1000, 16 + 100 * 10 + 3000, 16]


@given(
    asked=arrays(np.bool_, (6, 5)),
    prompt=arrays(np.int64, 6, elements=st.integers(1, 200)),
    one_more=st.tuples(st.integers(0, 5), st.integers(0, 4)),
)
def test_asking_for_one_more_token_never_costs_less(asked: Any, prompt: Any, one_more: tuple[int, int]) -> None:
    length = np.full(6, 5)
    before = pairs.count_work(prompt, asked, length)
    asked = asked.copy()
    asked[one_more] = True
    after = pairs.count_work(prompt, asked, length)
    assert (after.large_tokens >= before.large_tokens).all()
    assert (after.flops(3, 50) >= before.flops(3, 50)).all()
    assert (after.usd(prompt, (1.0, 4.0), (9.0, 36.0)) >= before.usd(prompt, (1.0, 4.0), (9.0, 36.0))).all()
    assert (after.large_tokens <= prompt + length - 1).all()


# --------------------------------------------------------------------------------------------------------- decoding


def test_with_threshold_1_the_small_model_writes_alone(pair: Any) -> None:
    for question in QUESTIONS[:8]:
        found = pairs.decode_pair(pair, question.query, ProjectionGate(), 1.0)
        assert found.tokens == greedy(pair, pair.small, question.query)
        assert (any(found.asked), found.large_tokens) == (False, 0)


def test_with_threshold_0_the_large_model_writes_alone(pair: Any) -> None:
    for question in QUESTIONS[:8]:
        found = pairs.decode_pair(pair, question.query, ProjectionGate(), 0.0)
        assert found.tokens == greedy(pair, pair.large, question.query)
        assert found.large_tokens == len(pair.prompt_ids(question.query)) + len(found.tokens) - 1


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_a_replay_in_the_tree_equals_live_decoding(pair: Any, tree: Any, threshold: float) -> None:
    gate = ProjectionGate()
    replayed = pairs.walk(tree, np.arange(len(QUESTIONS)), gate.need(tree.hidden), threshold)
    for row, question in enumerate(QUESTIONS):
        live = pairs.decode_pair(pair, question.query, gate, threshold)
        grader = grader_for(question.grader)
        assert replayed.grade[row] == grader.grade(pair.text(live.tokens), question.reference, question.query)
        assert replayed.work.answer_tokens[row] == len(live.tokens)
        assert replayed.work.large_written[row] == sum(live.asked)
        assert replayed.work.large_tokens[row] == live.large_tokens
        assert replayed.work.small_tokens[row] == live.small_tokens


def test_the_gate_of_these_tests_mixes_both_models(tree: Any) -> None:
    work = pairs.walk(tree, np.arange(len(QUESTIONS)), ProjectionGate().need(tree.hidden), 0.5).work
    mixed = (work.large_written > 0) & (work.large_written < work.answer_tokens)
    assert mixed.sum() > 3


def test_rollouts_say_what_each_models_token_is_worth(tree: Any) -> None:
    rows = np.arange(len(QUESTIONS))
    nobody, everybody = np.zeros(len(tree.child), dtype=bool), np.ones(len(tree.child), dtype=bool)
    small = pairs.walk(tree, rows, nobody.astype(float), 0.5).grade
    large = pairs.walk(tree, rows, everybody.astype(float), 0.5).grade
    assert tree.values(nobody)[: len(rows), pairs.SMALL].tolist() == small.tolist()
    assert tree.values(everybody)[: len(rows), pairs.LARGE].tolist() == large.tolist()
    assert small.tolist() != large.tolist()


def test_no_gate_repairs_more_than_the_best_one(tree: Any) -> None:
    rows = np.arange(len(QUESTIONS))
    gain, tokens = pairs.cheapest_repair(tree)
    small = pairs.walk(tree, rows, np.zeros(len(tree.child)), 0.5).grade
    for seed in range(20):
        need = np.random.default_rng(seed).random(len(tree.child))
        found = pairs.walk(tree, rows, need, 0.5)
        assert (found.grade - small <= gain).all()
        repaired = (found.grade - small == gain) & (gain > 0)
        assert (found.work.large_tokens[repaired] >= tokens[repaired]).all()
    assert gain.sum() > 0
    assert ((tokens == 0) == (gain == 0)).all()


def test_a_priced_threshold_asks_again_more_readily_where_the_large_model_has_read_on(tree: Any) -> None:
    rows = np.arange(len(QUESTIONS))
    need = np.full(len(tree.child), 0.3)
    need[rows] = 2.0  # the first token is always asked for
    plain = pairs.walk(tree, rows, need, 0.5)
    priced = pairs.walk(tree, rows, need, 0.5, priced=True)
    assert (plain.work.large_written == 1).all()
    assert (priced.work.large_written == priced.work.answer_tokens).all()
