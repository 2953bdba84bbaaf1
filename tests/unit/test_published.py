"""Outcomes in the layouts that others publish, and what is refused in them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eccos_core.cli import app
from eccos_core.cli.output import run
from eccos_core.errors import DataError, InputError
from eccos_core.io.outcomes import read_outcomes
from eccos_core.io.published import READERS, read_published

ROUTERBENCH = """sample_id,prompt,eval_name,small,large,small|model_response,small|total_cost,large|total_cost,oracle
grade.1,"['Be brief.', 'What is 2 + 2?']",grade-school-math,0.0,1.0,five,0.0001,0.002,large
mmlu.7,Name a gas.,mmlu,1.0,,neon,0.0002,,small
"""
ROUTELLM = """prompt,mixtral,gpt-4,mixtral_response,gpt-4_response
"What is 2 + 2?
Answer:",False,True,five,four
Same again?,True,True,a,b
Same again?,False,True,a,b
"""
OWN = """query,model,correct,output_tokens,cost_usd
What is 2 + 2?,small,0,12,0.001
What is 2 + 2?,large,1,30,0.02
Name a gas.,small,0.5,,
"""
SPROUT: list[dict[str, Any]] = [
    {
        "key": 17,
        "dataset": "mmlu-pro",
        "prompt": "Name a gas.",
        "golden_answer": "neon",
        "openai-gpt-4o": {"score": 1.0, "num_input_tokens": 12, "num_output_tokens": 30, "response": "neon"},
        "llama-8b": {"score": 0.25, "num_input_tokens": 14, "num_output_tokens": None, "response": "?"},
    }
]


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def run_file(model: str, score: object, **more: Any) -> str:
    record = {"index": 1, "origin_query": "Name a gas.", "score": score, "prompt_tokens": 5, "completion_tokens": 9}
    content = {"dataset_name": "aime", "split": "test", "model_name": model, "demo": False}
    return json.dumps({**content, "records": [{**record, "cost": 0.003}], **more})


def test_routerbench_has_scores_and_total_costs(tmp_path: Path) -> None:
    table = read_published(write(tmp_path, "rb.csv", ROUTERBENCH), "routerbench")
    assert (table.question_ids, table.models) == (("grade.1", "mmlu.7"), ("small", "large"))
    assert table.queries == ("Be brief.\nWhat is 2 + 2?", "Name a gas.")
    np.testing.assert_array_equal(table.quality, [[0, 1], [1, np.nan]])
    np.testing.assert_array_equal(table.cost_usd, [[0.0001, 0.002], [0.0002, np.nan]])
    assert table.labels == {"dataset": ("grade-school-math", "mmlu")}


def test_routellm_names_each_question_by_its_row(tmp_path: Path) -> None:
    write(tmp_path, "mmlu_anatomy.csv", ROUTELLM)
    write(tmp_path, "mmlu_law.csv", "prompt,mixtral,gpt-4\nIs it legal?,True,False\n")
    table = read_published(tmp_path, "routellm")
    assert table.models == ("mixtral", "gpt-4")
    assert table.question_ids == ("anatomy.0", "anatomy.1", "anatomy.2", "law.0")
    assert table.quality.tolist() == [[0, 1], [1, 1], [0, 1], [1, 0]]
    assert table.labels["dataset"] == ("anatomy", "anatomy", "anatomy", "law")
    assert table.cost_usd is None


def test_llmrouterbench_takes_the_newest_run_of_each_model(tmp_path: Path) -> None:
    write(tmp_path, "aime/test/a/run_20250101_000000.json", run_file("a", 0.0))
    write(tmp_path, "aime/test/a/run_20250601_120000.json", run_file("a", 1.0))
    write(tmp_path, "aime/test/b/run_20250301_000000.json", run_file("b", None))
    write(tmp_path, "aime/test/b/run_20260101_000000.json", run_file("b", 1.0, demo=True))
    table = read_published(tmp_path, "llmrouterbench")
    assert (table.question_ids, table.models) == (("aime/test/1",), ("a", "b"))
    np.testing.assert_array_equal(table.quality, [[1, np.nan]])
    assert (table.input_tokens[0, 0], table.output_tokens[0, 0]) == (5, 9)
    np.testing.assert_array_equal(table.cost_usd, [[0.003, 0.003]])


def test_sprout_has_an_object_per_model(tmp_path: Path) -> None:
    table = read_published(write(tmp_path, "s.jsonl", "\n".join(map(json.dumps, SPROUT))), "sprout")
    assert (table.question_ids, table.models) == (("17",), ("openai-gpt-4o", "llama-8b"))
    np.testing.assert_array_equal(table.quality, [[1, 0.25]])
    np.testing.assert_array_equal(table.output_tokens, [[30, np.nan]])
    assert table.labels == {"dataset": ("mmlu-pro",)}


def test_a_csv_of_your_own_has_a_row_per_answer(tmp_path: Path) -> None:
    path = tmp_path / "own.csv.gz"
    path.write_bytes(gzip.compress(OWN.encode()))
    table = read_published(path, "csv")
    assert (len(table), table.models) == (2, ("small", "large"))
    np.testing.assert_array_equal(table.quality, [[0, 1], [0.5, np.nan]])
    np.testing.assert_array_equal(table.cost_usd, [[0.001, 0.02], [np.nan, np.nan]])
    assert table.labels == {}


@pytest.mark.parametrize(
    ("layout", "text", "line", "said"),
    [
        ("csv", OWN.replace("0.5", "1.5"), 4, 'correct is the text "1.5", must be a number from 0 to 1'),
        ("csv", OWN.replace("0.001", "-1"), 2, 'cost_usd is the text "-1", must be a finite number >= 0'),
        ("csv", OWN.replace("correct", "corect"), 1, "the column 'correct' is missing; did you mean 'corect'"),
        ("csv", OWN.replace("small,0,12", "small,0"), 2, "another number of cells than the header, which has 5"),
        (
            "csv",
            OWN + "What is 2 + 2?,small,1,12,0.001\n",
            5,
            "small answers question .* a second time, with score 1 here and 0 before. Keep one of the two",
        ),
        ("csv", OWN + "What is 2 + 2?,small,0,12,0.002\n", 5, "with cost 0.002 here and 0.001 before"),
        ("csv", OWN.replace("0.001", "inf"), 2, 'cost_usd is the text "inf", must be a finite number >= 0'),
        ("csv", OWN.replace("0.001", "nan"), 2, 'cost_usd is the text "nan", must be a finite number >= 0'),
        ("csv", OWN.replace(",12,", ",1.5,"), 2, 'tokens is the text "1.5", must be a whole number >= 0'),
        ("csv", OWN.replace("small,", ","), 2, "an answer of a model without a name"),
        ("csv", OWN.replace("cost_usd", "cost"), 1, "the column 'cost' is unknown; did you mean 'cost_usd'"),
        ("csv", "query,model,correct\n,a,1\n", 2, "is empty"),
        ("csv", "query,model,correct\nWhat?,a,\n", None, "no score of any model"),
        ("routerbench", ROUTERBENCH.replace("|total_cost", "|price"), 2, r"no column ends in '\|total_cost'"),
        ("sprout", '{"prompt": "What?"}', 1, "at least one model with a 'score'"),
        ("llmrouterbench", '{"records": []}', None, "dataset_name, split, model_name and records"),
        ("llmrouterbench", run_file("a", "good"), None, 'score is the text "good", must be a number from 0 to 1'),
    ],
)
def test_what_cannot_be_true_is_named(tmp_path: Path, layout: str, text: str, line: int | None, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        read_published(write(tmp_path, "file", text), layout)
    assert caught.value.line == line


def test_a_file_that_is_not_there_and_an_unknown_layout_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read as CSV"):
        read_published(tmp_path / "nothing.csv", "csv")
    with pytest.raises(DataError, match=r"holds no \.csv file"):
        read_published(tmp_path, "routellm")
    with pytest.raises(InputError, match=r"unknown layout 'routerbnch'; did you mean 'routerbench'"):
        read_published(tmp_path, "routerbnch")


def test_the_command_writes_an_outcomes_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = write(tmp_path, "rb.csv", ROUTERBENCH), tmp_path / "out.jsonl.gz"
    assert run(app, ["convert", str(source), str(out), "--from", "routerbench", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["questions"] == 2
    table, published = read_outcomes(out), READERS["routerbench"](source)
    np.testing.assert_array_equal(table.quality, published.quality)
    np.testing.assert_array_equal(table.cost_usd, published.cost_usd)
    assert run(app, ["convert", str(source), str(out), "--from", "sprouts"]) == 1
