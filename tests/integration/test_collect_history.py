"""The bundled history: what it holds, and that the bundled models still answer like that."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from eccos_core.io.files import read_json_lines
from eccos_core.io.outcomes import read_outcomes, split
from eccos_core.pocket import pocket_names, pool_history_path
from eccos_core.pocket.questions import generate_questions
from tools.pocket.collect_history import QUESTIONS, SEED, collect_history, pack


def test_the_history_is_small_and_complete() -> None:
    assert pool_history_path().stat().st_size < 1_000_000
    table = read_outcomes(pool_history_path())
    assert len(table) >= 3000
    assert set(table.models) == set(pocket_names())
    assert not np.isnan(table.quality).any()
    assert not np.isnan(table.output_tokens).any()
    train, test = split(table)
    assert min(len(train), len(test)) > 900


def test_the_history_tells_what_each_answer_tells() -> None:
    table = read_outcomes(pool_history_path())
    assert table.answers is not None
    assert np.mean(table.answers != None) > 0.99  # noqa: E711 - each cell is a text or None
    logprob, good = table.features["mean_logprob"], table.quality >= 0.5
    known = ~np.isnan(logprob)
    assert known.mean() > 0.99
    assert (logprob[known] <= 0).all()
    assert np.median(logprob[known & good]) > 5 * np.median(logprob[known & ~good]), "a right answer is surer"


def test_no_model_of_the_history_is_best_everywhere_and_the_best_of_all_is_far_better_than_each() -> None:
    table = read_outcomes(pool_history_path())
    subjects = np.array(table.labels["subject"])
    best = {subject: int(table.quality[subjects == subject].mean(axis=0).argmax()) for subject in set(subjects)}
    assert len(set(best.values())) == 2
    assert table.quality.max(axis=1).mean() > table.quality.mean(axis=0).max() + 0.1


def test_every_question_of_the_history_is_held_out_and_can_be_drawn_again() -> None:
    drawn = generate_questions(QUESTIONS, SEED, "heldout")
    rows = [row for _, row in read_json_lines(pool_history_path())]
    assert [row["id"] for row in rows] == [question.id for question in drawn]
    assert [row["query"] for row in rows] == [question.query for question in drawn]


def test_packing_leaves_out_latencies_and_gives_the_same_bytes_twice(tmp_path: Path) -> None:
    outcomes = tmp_path / "o.jsonl"
    outcomes.write_text(json.dumps({"id": "a", "outputs": [{"model": "m", "correct": 1.0, "latency_s": 0.25}]}) + "\n")
    assert pack(outcomes, tmp_path / "1.gz") == pack(outcomes, tmp_path / "2.gz")
    assert (tmp_path / "1.gz").read_bytes() == (tmp_path / "2.gz").read_bytes()
    ((_, row),) = read_json_lines(tmp_path / "1.gz")
    assert row == {"id": "a", "outputs": [{"model": "m", "correct": 1.0}]}


@pytest.mark.service
def test_the_bundled_models_answer_as_the_history_says(tmp_path: Path) -> None:
    count = 24
    collected = collect_history(tmp_path, count)
    assert collected.complete == count
    now = read_outcomes(tmp_path / "outcomes.jsonl")
    recorded = read_outcomes(pool_history_path()).rows(np.arange(count))
    assert now.question_ids == recorded.question_ids
    same = now.quality == recorded.quality
    assert same.mean() > 0.97  # another processor may round another way
