"""Outcomes and prices files: what they say, and what a person is told when they say something impossible."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eccos_core.domain import Outcome, OutcomeTable
from eccos_core.errors import DataError, InputError
from eccos_core.io.files import atomic_writer
from eccos_core.io.outcome_tables import outcomes_of, table_of
from eccos_core.io.outcomes import is_test, read_outcomes, split, write_outcomes
from eccos_core.io.prices import read_prices

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def line(question_id: Any = "q1", query: Any = "What is 2 + 2?", outputs: Any = None, **more: Any) -> dict[str, Any]:
    answers = [{"model": "a", "correct": 1, "input_tokens": 8, "output_tokens": 2}] if outputs is None else outputs
    return {"id": question_id, "query": query, "outputs": answers, **more}


def written(folder: Path, *lines: dict[str, Any], name: str = "o.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(entry) + "\n" for entry in lines), encoding="utf-8")
    return path


def complaint(path: Path) -> DataError:
    with pytest.raises(DataError) as caught:
        read_outcomes(path)
    return caught.value


# ------------------------------------------------------------------------------------------------------------- reading


def test_a_file_becomes_a_table_of_questions_by_models(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        line(
            dataset="math", outputs=[{"model": "a", "correct": 1, "output_tokens": 7}, {"model": "b", "correct": 0.25}]
        ),
        line("q2", "Who wrote Faust?", [{"model": "c", "correct": 0.0, "input_tokens": None}], dataset="books"),
    )
    table = read_outcomes(path)
    assert (table.question_ids, table.models) == (("q1", "q2"), ("a", "b", "c"))
    np.testing.assert_array_equal(table.quality, [[1, 0.25, np.nan], [np.nan, np.nan, 0]])
    np.testing.assert_array_equal(table.output_tokens, [[7, np.nan, np.nan], [np.nan, np.nan, np.nan]])
    assert np.isnan(table.input_tokens).all()
    assert table.labels == {"dataset": ("math", "books")}


def test_gzip_is_recognised_by_its_content(tmp_path: Path) -> None:
    plain = written(tmp_path, line())
    for name in ("o.jsonl.gz", "no-extension"):
        packed = tmp_path / name
        packed.write_bytes(gzip.compress(plain.read_bytes()))
        assert read_outcomes(packed).question_ids == ("q1",)


def test_blank_lines_a_byte_order_mark_and_numbers_as_ids_are_tolerated(tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(line(17)).encode() + b"\r\n\n  \n")
    assert read_outcomes(path).question_ids == ("17",)


def test_the_same_line_twice_is_one_question(tmp_path: Path) -> None:
    table = read_outcomes(written(tmp_path, line(), line()))
    assert table.quality.tolist() == [[1.0]]


def test_a_second_line_may_add_models_and_fill_in_what_was_missing(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        line(outputs=[{"model": "a", "correct": None, "input_tokens": 8}]),
        line(outputs=[{"model": "a", "correct": 1, "output_tokens": 3}, {"model": "b", "correct": 0}]),
    )
    table = read_outcomes(path)
    assert (table.quality.tolist(), table.input_tokens[0, 0], table.output_tokens[0, 0]) == ([[1, 0]], 8, 3)


def test_what_a_call_really_cost_is_kept(tmp_path: Path) -> None:
    costs = [{"model": "a", "correct": 1, "cost_usd": 0.0125}, {"model": "b", "correct": 0}]
    table = read_outcomes(written(tmp_path, line(outputs=costs)))
    np.testing.assert_array_equal(table.cost_usd, [[0.0125, np.nan]])
    write_outcomes(tmp_path / "again.jsonl", table)
    np.testing.assert_array_equal(read_outcomes(tmp_path / "again.jsonl").cost_usd, table.cost_usd)
    assert read_outcomes(written(tmp_path, line())).cost_usd is None


def test_a_failed_call_is_missing_not_wrong(tmp_path: Path) -> None:
    path = written(
        tmp_path, line(outputs=[{"model": "a", "error": "Timeout"}, {"model": "b", "correct": 0, "input_tokens": 0}])
    )
    table = read_outcomes(path)
    np.testing.assert_array_equal(table.quality, [[np.nan, 0]])
    assert [outcome.model for outcome in outcomes_of(table)] == ["b"]


def test_one_question_and_one_model_are_a_table(tmp_path: Path) -> None:
    assert read_outcomes(written(tmp_path, line())).quality.shape == (1, 1)


def test_labels_name_groups_of_questions_and_never_the_answer_or_the_split(tmp_path: Path) -> None:
    lines = [
        line(f"q{i}", f"{i}?", dataset="d", subject="law" if i % 2 else "art", author=f"person {i}", reference="B",
             split="train", level=3, note="x" * 65)
        for i in range(8)
    ]  # fmt: skip
    labels = read_outcomes(written(tmp_path, *lines)).labels
    assert set(labels) == {"dataset", "subject"}
    assert labels["subject"] == ("art", "law") * 4


# ---------------------------------------------------------------------------------------------------------- complaints


def output(**fields: Any) -> dict[str, Any]:
    return line("q2", outputs=[{"model": "a", "correct": 1} | fields])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (output(correct=1.5), "(a): correct is the number 1.5, must be a number in [0, 1]"),
        (output(correct=-0.1), "correct is the number -0.1"),
        (output(correct=float("nan")), "correct is the number NaN"),
        (output(correct=True), "correct is the truth value true"),
        (output(correct="1"), 'correct is the text "1"'),
        (output(cost_usd=-0.1), "cost_usd is the number -0.1, must be a finite number >= 0"),
        (output(cost_usd=float("inf")), "cost_usd is the number Infinity, must be a finite number >= 0"),
        (output(cost_usd="free"), 'cost_usd is the text "free", must be a finite number >= 0'),
        (output(input_tokens=-4), "input_tokens is the number -4, must be a whole number >= 0"),
        (output(output_tokens=2.5), "output_tokens is the number 2.5"),
        (output(output_tokens=float("inf")), "output_tokens is the number Infinity"),
        (output(output_tokens=False), "output_tokens is the truth value false"),
        (output(output_tokens=[3]), "output_tokens is a list [3]"),
        (output(model=""), 'model is the text "", must be a text that is not empty'),
        (output(model=None), "model is null"),
        (line("q2", outputs=[{"model": "a", "corect": 1}]), "'correct' is missing; did you mean 'corect'?"),
        (line("q2", outputs=[{"correct": 1}]), "'model' is missing"),
        (line("q2", outputs=[]), "outputs is a list [], must be a list with at least one output"),
        (line("q2", outputs={"a": 1}), "outputs is an object"),
        (line("q2", outputs=["a"]), 'outputs[0] is the text "a", must be an object'),
        (line("q2", query=["hello"]), "query is a list"),
        (line("q2", query="  "), "query is the text"),
        (line("q2", query="\ud800"), "half of a surrogate pair"),
        (line(None), "id is null"),
        (line(True), "id is the truth value true"),
        ({"id": "q2", "query": "x"}, "outputs is missing"),
        ({"id": "q2", "question": "x", "outputs": []}, "'query' is missing"),
        (line("q1", query="Another question?"), "id 'q1' has another query on line 1"),
        (line("q1", outputs=[{"model": "a", "correct": 0}]), "a has correct 0 here and 1 on line 1"),
        (
            line("q1", outputs=[{"model": "a", "correct": 1, "output_tokens": 9}]),
            "output_tokens 9 here and 2 on line 1",
        ),
        (line("q2", outputs=[{"model": "a", "correct": 0}, {"model": "a", "correct": 1}]), "correct 1 here and 0"),
    ],
)
def test_a_line_that_cannot_be_true_is_named_with_rule_and_value(
    tmp_path: Path, wrong: dict[str, Any], said: str
) -> None:
    path = written(tmp_path, line(), wrong)
    error = complaint(path)
    assert error.line == 2
    assert str(error).startswith(f"{path}:2: ")
    assert said in str(error)


@pytest.mark.parametrize(
    ("content", "at", "said"),
    [
        (b"", None, "holds no questions"),
        (b"\n\n", None, "holds no questions"),
        (b"{}\nnot json\n", 1, "'id' is missing"),
        (json.dumps(line()).encode() + b"\n{'id': 1}", 2, "not JSON"),
        (json.dumps(line()).encode() + b'\n{"id": "\xff"}', 2, "not UTF-8 (byte 0xff at column 9)"),
        (b"[1, 2]", 1, "must be one JSON object, this is a list [1, 2]"),
        (b"[" * 200_000, 1, "not JSON that can be read"),
        (json.dumps(line(outputs=[{"model": "a", "correct": None}])).encode(), None, "no output has a score"),
    ],
)
def test_a_file_that_is_no_outcomes_file_is_refused(tmp_path: Path, content: bytes, at: int | None, said: str) -> None:
    path = tmp_path / "o.jsonl"
    path.write_bytes(content)
    error = complaint(path)
    assert (error.line, said in str(error)) == (at, True), error


def test_damaged_gzip_is_named_with_the_line_it_breaks_at(tmp_path: Path) -> None:
    whole = gzip.compress("".join(json.dumps(line(f"q{i}", f"{i} + {i * 7919}?")) + "\n" for i in range(2000)).encode())
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes(255 - byte for byte in whole[middle : middle + 40]) + whole[middle + 40 :]
    for broken in (whole[:middle], flipped, whole[:-8] + b"\0" * 8):
        path = tmp_path / "o.jsonl.gz"
        path.write_bytes(broken)
        error = complaint(path)
        assert error.line is not None
        assert error.line > 100
    path.write_bytes(b'{"id": "plain text"}')
    assert "gzip data is damaged" in str(complaint(path))
    path.write_bytes(b"")
    assert "holds no questions" in str(complaint(path))


def test_a_missing_file_and_a_folder_are_data_errors(tmp_path: Path) -> None:
    assert "no such file" in str(complaint(tmp_path / "absent.jsonl"))
    assert "cannot be read" in str(complaint(tmp_path))


# -------------------------------------------------------------------------------------------------------------- writing

words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(str.strip)
scores = st.one_of(st.none(), st.floats(0, 1))
counts = st.one_of(st.none(), st.integers(0, 10**6))


@st.composite
def tables(draw: st.DrawFn) -> OutcomeTable:
    ids = draw(st.lists(words, min_size=1, max_size=4, unique=True))
    models = draw(st.lists(words, min_size=1, max_size=3, unique=True))

    def cells(values: st.SearchStrategy[Any]) -> Any:
        flat = [draw(values) for _ in range(len(ids) * len(models))]
        return np.array([np.nan if v is None else v for v in flat], dtype=float).reshape(len(ids), len(models))

    quality = cells(scores)
    quality[0, 0] = 0.5
    return OutcomeTable(
        question_ids=tuple(ids),
        queries=tuple(draw(words) for _ in ids),
        models=tuple(models),
        quality=quality,
        input_tokens=cells(counts),
        output_tokens=cells(counts),
        labels={"dataset": tuple(draw(st.sampled_from(["x", "y"])) for _ in ids)},
    )


@settings(deadline=None, max_examples=60)
@given(table=tables(), packed=st.booleans())
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, table: OutcomeTable, packed: bool
) -> None:
    path = tmp_path_factory.mktemp("o") / ("t.jsonl.gz" if packed else "t.jsonl")
    write_outcomes(path, table)
    again = read_outcomes(path)
    assert (again.question_ids, again.queries, again.labels) == (table.question_ids, table.queries, table.labels)
    order = [again.models.index(model) for model in table.models if model in again.models]
    kept = [j for j, model in enumerate(table.models) if model in again.models]
    for name in ("quality", "input_tokens", "output_tokens"):
        np.testing.assert_array_equal(getattr(again, name)[:, order], getattr(table, name)[:, kept])
    lost = [j for j in range(len(table.models)) if j not in kept]
    assert np.isnan(table.quality[:, lost]).all()


def test_writing_that_fails_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = written(tmp_path, line())
    before = path.read_bytes()
    with pytest.raises(RuntimeError), atomic_writer(path) as stream:  # noqa: PT012 - both lines belong to the block
        stream.write(b"half")
        raise RuntimeError("power cut")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_outcomes_and_tables_are_two_views_of_the_same(tmp_path: Path) -> None:
    table = read_outcomes(written(tmp_path, line(dataset="m"), output(correct=0.5), line("q3", "z?")))
    outcomes = list(outcomes_of(table))
    assert outcomes[0] == Outcome("q1", "What is 2 + 2?", "a", 1.0, 8, 2, {"dataset": "m"})
    again = table_of(outcomes)
    np.testing.assert_array_equal(again.quality, table.quality)
    assert (again.question_ids, again.labels) == (table.question_ids, {"dataset": ("m", None, None)})


def test_a_table_of_outcomes_keeps_the_later_of_two_and_refuses_one_id_for_two_queries() -> None:
    first, second = Outcome("q", "x?", "a", 0.0), Outcome("q", "x?", "a", 1.0)
    assert table_of([first, second]).quality.tolist() == [[1.0]]
    assert table_of([first, second], models=("b", "a")).models == ("b", "a")
    with pytest.raises(InputError, match="two different queries"):
        table_of([first, Outcome("q", "y?", "a", 0.0)])


# --------------------------------------------------------------------------------------------------- splitting, prices


def test_the_split_is_the_rule_of_the_data_card() -> None:
    import hashlib

    for i in range(200):
        expected = int(hashlib.sha256(f"q-{i}".encode()).hexdigest()[:8], 16) / 2**32 < 0.3
        assert is_test(f"q-{i}") is expected
    assert 0.2 < np.mean([is_test(str(i)) for i in range(2000)]) < 0.4


def test_every_question_is_in_exactly_one_part(tmp_path: Path) -> None:
    table = read_outcomes(written(tmp_path, *(line(f"q{i}", f"{i}?") for i in range(50))))
    train, test = split(table)
    assert set(train.question_ids) | set(test.question_ids) == set(table.question_ids)
    assert len(train) + len(test) == 50
    assert all(is_test(i) for i in test.question_ids)


def test_prices_are_read_per_token_and_per_million(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text(
        '{"a": {"usd_per_million_input_tokens": 5, "usd_per_million_output_tokens": 15},\n'
        ' "b": {"usd_per_input_token": 1e-7, "usd_per_output_token": 0}}'
    )
    assert read_prices(path, ["a"]) == {"a": (5e-6, 15e-6), "b": (1e-7, 0.0)}
    with pytest.raises(DataError, match="no price for c, d; the file has: a, b"):
        read_prices(path, ["c", "a", "d"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"a": 3}', "a: the price is the number 3"),
        ('{"a": {"usd_per_million_input_tokens": 1}}', "usd_per_million_output_tokens is missing"),
        ('{"a": {"usd_per_input_token": -1, "usd_per_output_token": 1}}', "usd_per_input_token is the number -1"),
        ('{"a": {"usd_per_input_token": NaN, "usd_per_output_token": 1}}', "usd_per_input_token is the number NaN"),
        ('{"a": {"usd_per_input_token": 1, "usd_per_million_input_tokens": 1}}', "keep one of the two"),
        ("[]", "must be one JSON object"),
        ("{", "not JSON"),
    ],
)
def test_a_price_that_cannot_be_true_is_refused(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "p.json"
    path.write_text(content)
    with pytest.raises(DataError) as caught:
        read_prices(path)
    assert said in str(caught.value)


@pytest.mark.data
@pytest.mark.skipif(not DATA.exists(), reason="../shared/data is not here")
@pytest.mark.parametrize(
    ("name", "questions", "best"), [("qa_math_mix9", 13_106, 0.7653), ("llmrouter_dcrouter", 5_933, 0.6226)]
)
def test_the_real_files_are_read_as_their_cards_say(name: str, questions: int, best: float) -> None:
    table = read_outcomes(DATA / f"{name}.jsonl.gz")
    assert table.quality.shape == (questions, 9)
    assert table.quality.mean(axis=0).max() == pytest.approx(best, abs=5e-5)
    assert set(read_prices(DATA / f"{name}.prices.json", table.models)) == set(table.models)
