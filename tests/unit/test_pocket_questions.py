"""The questions of the pocket pool: repeatable, distinct, split for good, and with true references."""

from __future__ import annotations

import calendar
import json
import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from eccos_core.errors import InputError
from eccos_core.pocket.knowledge import knowledge_families
from eccos_core.pocket.questions import PocketQuestion, TrainingMix, family_names, generate_questions

UNITS_IN = {
    ("kilometres", "metres"): 1000, ("kilograms", "grams"): 1000, ("metres", "centimetres"): 100,
    ("centimetres", "millimetres"): 10, ("litres", "millilitres"): 1000, ("weeks", "days"): 7,
    ("years", "months"): 12, ("feet", "inches"): 12, ("yards", "feet"): 3, ("days", "hours"): 24,
    ("hours", "minutes"): 60, ("minutes", "seconds"): 60, ("dollars", "cents"): 100, ("centuries", "years"): 100,
}  # fmt: skip


def converted(query: str, numbers: list[int]) -> int:
    """Solve a conversion from its words alone."""
    units = [w for w in re.findall(r"[a-z]+", query.lower()) if any(w in pair for pair in UNITS_IN)]
    one, other = units
    # "How many metres are 3 kilometres" names the wanted unit first; the number stands before the given one.
    given = re.search(rf"{numbers[0]} ([a-z]+)", query)
    assert given is not None
    source = given.group(1)
    return numbers[0] * UNITS_IN[(source, other if source == one else one)]


def told(query: str, numbers: list[int]) -> int:
    """Solve a word problem from its words alone."""
    a, b = numbers
    if "each" in query:
        return a * b
    return a + b if "more" in query.split("How many")[0] else a - b


SOLVE: dict[str, Callable[[str, list[int]], object]] = {
    "sum": lambda q, n: n[0] + n[1],
    "difference": lambda q, n: abs(n[0] - n[1]),
    "product": lambda q, n: n[0] * n[1],
    "quotient": lambda q, n: max(n) / min(n),
    "comparison": lambda q, n: max(n) if re.search("larg|great|big", q) else min(n),
    "conversion": converted,
    "story": told,
    "sequence": lambda q, n: n[3] + (n[1] - n[0]),
    "chain": lambda q, n: n[0] + n[1] - n[2] if re.search(r" - |subtract", q) else sum(n),
    "double_half": lambda q, n: n[0] / 2 if re.search("[Hh]al[fv]", q) else n[0] * 2,
    "percent": lambda q, n: n[0] * n[1] / 100,
    "successor": lambda q, n: n[0] + 1 if "after" in q else n[0] - 1,
    "parity": lambda q, n: ("even", "odd")[n[0] % 2],
}


@pytest.fixture(scope="module")
def held_out() -> list[PocketQuestion]:
    return generate_questions(6_000, seed=11, split="heldout")


def test_the_same_seed_gives_the_same_questions_in_another_process(held_out: list[PocketQuestion]) -> None:
    program = (
        "import json; from eccos_core.pocket.questions import generate_questions;"
        "print(json.dumps([q.as_row() for q in generate_questions(300, seed=11, split='heldout')]))"
    )
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(other.stdout) == [question.as_row() for question in held_out[:300]]


def test_another_seed_gives_other_questions(held_out: list[PocketQuestion]) -> None:
    other = generate_questions(300, seed=12, split="heldout")
    assert len({q.query for q in other} & {q.query for q in held_out[:300]}) < 60


def test_six_thousand_held_out_questions_are_distinct_in_text_and_id(held_out: list[PocketQuestion]) -> None:
    assert len({question.query for question in held_out}) == 6_000
    assert len({question.id for question in held_out}) == 6_000


def test_no_held_out_question_can_be_drawn_for_training(held_out: list[PocketQuestion]) -> None:
    training = {question.query for seed in (1, 2) for question in generate_questions(20_000, seed=seed, split="train")}
    assert not training & {question.query for question in held_out}


def test_operands_held_out_once_are_held_out_in_every_wording_and_order() -> None:
    def large_operands(split: str) -> set[tuple[int, ...]]:
        diet = TrainingMix(families=("sum",))
        questions = generate_questions(4_000, seed=5, split=split, diet=diet)  # type: ignore[arg-type]
        found = (tuple(sorted(map(int, re.findall(r"\d+", q.query)))) for q in questions)
        return {operands for operands in found if max(operands) > 12}

    assert not large_operands("train") & large_operands("heldout")


def test_every_family_is_asked_and_both_subjects_are_equally_frequent(held_out: list[PocketQuestion]) -> None:
    assert {question.dataset for question in held_out} == set(family_names())
    knowledge = sum(question.subject == "knowledge" for question in held_out)
    assert 0.45 < knowledge / len(held_out) < 0.55


@pytest.mark.parametrize("family", family_names("mathematics"))
def test_references_of_mathematics_are_what_the_words_ask_for(family: str) -> None:
    for question in generate_questions(400, seed=3, split="heldout", diet=TrainingMix(families=(family,))):
        numbers = [int(number) for number in re.findall(r"\d+", question.query)]
        expected = SOLVE[family](question.query, numbers)
        answer = question.reference if question.grader == "exact" else int(question.reference)
        assert answer == expected, question.query


def test_facts_that_come_in_pairs_agree_in_both_directions() -> None:
    facts = {family.name: dict(family.facts) for family in knowledge_families()}
    assert {city: country for country, city in facts["capital"].items()} == facts["country"]
    assert {symbol: element for element, symbol in facts["symbol"].items()} == facts["element"]
    numbers = list(facts["atomic_number"].values())
    assert len(set(numbers)) == len(numbers)
    for forward, backward in (("next_day", "previous_day"), ("next_month", "previous_month")):
        assert {after: before for before, after in facts[forward].items()} == facts[backward]


def test_facts_about_the_calendar_agree_with_the_calendar() -> None:
    facts = {family.name: dict(family.facts) for family in knowledge_families()}
    months, days = list(calendar.month_name)[1:], list(calendar.day_name)
    assert facts["month_number"] == {month: str(number) for number, month in enumerate(months, start=1)}
    assert facts["days_in_month"] == {m: str(calendar.monthrange(2023, n)[1]) for n, m in enumerate(months, start=1)}
    assert facts["next_day"] == dict(zip(days, days[1:] + days[:1], strict=True))
    assert facts["next_month"] == dict(zip(months, months[1:] + months[:1], strict=True))


def test_a_diet_limits_what_is_drawn() -> None:
    diet = TrainingMix(knowledge_share=0.5, hardest_fact=1, hardest_calculation=2, families=("capital", "sum"))
    questions = generate_questions(400, seed=4, split="train", diet=diet)
    cities = {question.reference for question in questions if question.dataset == "capital"}
    assert 10 < len(cities) <= 34
    assert {question.dataset for question in questions} == {"capital", "sum"}
    assert {question.difficulty for question in questions if question.dataset == "sum"} == {1, 2}


def test_more_questions_than_there_are_is_an_error_that_says_how_many_there_are() -> None:
    with pytest.raises(InputError, match=r"only .* distinct heldout questions"):
        generate_questions(1_000, seed=1, split="heldout", diet=TrainingMix(families=("next_day",)))


def test_an_unknown_family_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"capitals.*known: capital, country"):
        generate_questions(10, seed=1, diet=TrainingMix(families=("capitals",)))


def test_a_negative_count_is_refused() -> None:
    with pytest.raises(InputError, match="-1"):
        generate_questions(-1, seed=1)
