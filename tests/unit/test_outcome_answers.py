"""Answers and their features in outcomes files and tables."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from eccos_core.domain import AnswerConfidence
from eccos_core.errors import DataError, InputError
from eccos_core.io.outcome_tables import joined, outcomes_of, table_of, with_models
from eccos_core.io.outcomes import read_outcomes, write_outcomes


def write(path: Path, *outputs: dict, again: dict | None = None) -> Path:
    lines = [{"id": "q", "query": "2 + 2?", "outputs": list(outputs)}]
    if again is not None:
        lines.append({"id": "q", "query": "2 + 2?", "outputs": [again]})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def output(model: str, **more: object) -> dict:
    return {"model": model, "correct": 1.0, **more}


def test_a_file_says_the_answer_and_its_features(tmp_path: Path) -> None:
    path = write(
        tmp_path / "o.jsonl",
        output("a", answer="B", features={"mean_logprob": -0.5, "valid": True, "reward": None}),
        output("b", answer=4),
        output("c", answer=None),
    )
    table = read_outcomes(path)
    assert table.answers is not None
    assert table.answers.tolist() == [["B", "4", None]]
    assert sorted(table.features) == ["mean_logprob", "valid"]
    np.testing.assert_array_equal(table.features["mean_logprob"], [[-0.5, np.nan, np.nan]])


def test_a_file_without_answers_has_none(tmp_path: Path) -> None:
    table = read_outcomes(write(tmp_path / "o.jsonl", output("a")))
    assert table.answers is None
    assert table.features == {}


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    table = read_outcomes(write(tmp_path / "o.jsonl", output("a", answer="B", features={"valid": 0.0}), output("b")))
    write_outcomes(tmp_path / "again.jsonl", table)
    again = read_outcomes(tmp_path / "again.jsonl")
    assert again.answers is not None
    assert again.answers.tolist() == [["B", None]]
    np.testing.assert_array_equal(again.features["valid"], [[0.0, np.nan]])


def test_tables_keep_answers_when_they_are_taken_apart_and_put_together(tmp_path: Path) -> None:
    table = read_outcomes(write(tmp_path / "o.jsonl", output("a", answer="B", features={"valid": 1}), output("b")))
    again = table_of(outcomes_of(table))
    assert again.answers is not None
    assert again.answers.tolist() == [["B", None]]
    turned = with_models(table, ["b", "new", "a"])
    assert turned.answers is not None
    assert turned.answers.tolist() == [[None, None, "B"]]
    np.testing.assert_array_equal(turned.features["valid"], [[np.nan, np.nan, 1.0]])
    bare = read_outcomes(write(tmp_path / "bare.jsonl", output("a"), output("b")))
    both = joined(bare, table)
    assert both.answers is not None
    assert both.answers.tolist() == [[None, None], ["B", None]]
    np.testing.assert_array_equal(both.features["valid"][:, 0], [np.nan, 1.0])
    assert both.rows(np.array([1])).answers.tolist() == [["B", None]]  # type: ignore[union-attr]


def test_runs_of_one_question_agree_on_an_answer_or_have_none(tmp_path: Path) -> None:
    def run(answer: str, logprob: float) -> dict:
        return {"correct": 1, "answer": answer, "features": {"mean_logprob": logprob}}

    path = write(
        tmp_path / "o.jsonl",
        {"model": "same", "attempts": [run("B", -1.0), run("B", -3.0)]},
        {"model": "torn", "attempts": [run("B", -1.0), run("C", -1.0)]},
    )
    table = read_outcomes(path)
    assert table.answers is not None
    assert table.answers.tolist() == [["B", None]]
    assert table.features["mean_logprob"].tolist() == [[-2.0, -1.0]]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"answer": ["B"]}, "answer is"),
        ({"answer": True}, "answer is"),
        ({"features": 3}, "features is"),
        ({"features": {"mean_logprobs": -1}}, "unknown feature 'mean_logprobs'; did you mean 'mean_logprob'"),
        ({"features": {"mean_logprob": 0.5}}, "mean_logprob is 0.5, must be a logarithm"),
        ({"features": {"reward": 1.5}}, r"reward is 1.5, must be in \[0, 1\]"),
        ({"features": {"valid": "yes"}}, "valid is"),
    ],
)
def test_a_faulty_answer_is_named_with_its_place(tmp_path: Path, more: dict, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        read_outcomes(write(tmp_path / "o.jsonl", output("a", **more)))
    assert "outputs[0] (a)" in str(caught.value)


def test_lines_that_contradict_each_other_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "o.jsonl", output("a", answer="B"), again=output("a", answer="C"))
    with pytest.raises(DataError, match="a has answer 'C' here and 'B' on line 1"):
        read_outcomes(path)


def test_a_later_line_fills_in(tmp_path: Path) -> None:
    path = write(tmp_path / "o.jsonl", output("a", answer="B"), again=output("a", features={"valid": 1}))
    table = read_outcomes(path)
    assert table.answers is not None
    assert table.answers.tolist() == [["B"]]
    assert table.features["valid"].tolist() == [[1.0]]


def test_confidence_checks_its_numbers_and_lists_the_known_ones() -> None:
    assert AnswerConfidence(mean_logprob=-0.5, length_ratio=2.0, quality=0.9).features == {"mean_logprob": -0.5}
    with pytest.raises(InputError, match=r"agreement is 1\.5"):
        AnswerConfidence(agreement=1.5)
    with pytest.raises(InputError, match="length_ratio is -1"):
        AnswerConfidence(length_ratio=-1.0)
