"""Mathematics questions of the pocket pool: operands drawn at random, difficulty 1 to 5.

Every family draws its operands, then a wording. What is held out is the operands (whatever the wording), except
for the tables that one learns by heart (sums and products of two numbers up to 12), where it is operands with wording.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from eccos_core.pocket.knowledge import Drawn, openings

__all__ = ["CONVERSIONS", "MathematicsFamily", "mathematics_families"]

_NAMES = ("Anna", "Ben", "Clara", "David", "Emma", "Finn", "Grace", "Henry")
_THINGS = ("apples", "books", "coins", "stamps", "marbles", "pencils", "stickers", "cards")
_LEARNT_BY_HEART = 12

#: (from, to, factor, difficulty)
CONVERSIONS = (
    ("kilometres", "metres", 1000, 1),
    ("kilograms", "grams", 1000, 1),
    ("metres", "centimetres", 100, 1),
    ("centimetres", "millimetres", 10, 1),
    ("litres", "millilitres", 1000, 1),
    ("weeks", "days", 7, 3),
    ("years", "months", 12, 3),
    ("feet", "inches", 12, 3),
    ("yards", "feet", 3, 2),
    ("days", "hours", 24, 4),
    ("hours", "minutes", 60, 3),
    ("minutes", "seconds", 60, 3),
    ("dollars", "cents", 100, 1),
    ("centuries", "years", 100, 1),
)


@dataclass(frozen=True, slots=True)
class MathematicsFamily:
    """One kind of calculation. ``weight`` is its share among mathematics questions."""

    name: str
    grader: str
    weight: float
    _draw: Callable[[Random], Drawn]

    def draw(self, random: Random) -> Drawn:
        """Draw operands, a wording and an opening."""
        drawn = self._draw(random)
        opening = random.choice(openings())
        return Drawn(drawn.key, opening + drawn.query, drawn.reference, drawn.difficulty)


def _number(random: Random, digits: int) -> int:
    return random.randint(1, 9) if digits == 1 else random.randint(10 ** (digits - 1), 10**digits - 1)


def _ask(
    random: Random,
    wordings: tuple[str, ...],
    operands: tuple[int, ...],
    answer: object,
    difficulty: int,
    *,
    unordered: bool = False,
) -> Drawn:
    """Word ``operands``; small ones are held out together with their wording, all others by themselves.

    ``unordered`` operands share one key whatever their order: a + b is not seen in training where b + a is held out.
    """
    wording = random.choice(wordings)
    key = "/".join(map(str, sorted(operands) if unordered else operands))
    if max(operands) <= _LEARNT_BY_HEART:
        key += "|" + wording
    return Drawn(key, wording.format(*operands), str(answer), difficulty)


def _sum(random: Random) -> Drawn:
    left, right, difficulty = random.choice(((1, 1, 1), (2, 1, 2), (2, 2, 3), (3, 2, 4), (3, 3, 5)))
    a, b = _number(random, left), _number(random, right)
    wordings = ("What is {0} + {1}?", "What is {0} plus {1}?", "Add {0} and {1}.", "Calculate {0} + {1}.",
                "What is the sum of {0} and {1}?", "How much is {0} plus {1}?", "{0} + {1} = ?")  # fmt: skip
    if random.random() < 0.5:
        a, b = b, a
    return _ask(random, wordings, (a, b), a + b, difficulty, unordered=True)


def _difference(random: Random) -> Drawn:
    left, right, difficulty = random.choice(((1, 1, 1), (2, 1, 2), (2, 2, 3), (3, 2, 4), (3, 3, 5)))
    a, b = _number(random, left), _number(random, right)
    a, b = max(a, b), min(a, b)
    wordings = ("What is {0} - {1}?", "What is {0} minus {1}?", "Subtract {1} from {0}.", "Calculate {0} - {1}.",
                "What is the difference between {0} and {1}?", "Take {1} away from {0}.", "{0} - {1} = ?")  # fmt: skip
    return _ask(random, wordings, (a, b), a - b, difficulty)


def _product(random: Random) -> Drawn:
    kind = random.random()
    if kind < 0.45:
        a, b, difficulty = random.randint(2, 12), random.randint(2, 12), 2
    elif kind < 0.85:
        a, b, difficulty = random.randint(13, 99), random.randint(2, 9), 4
    else:
        a, b, difficulty = random.randint(13, 99), random.randint(13, 99), 5
    if random.random() < 0.5:
        a, b = b, a
    wordings = ("What is {0} times {1}?", "What is {0} * {1}?", "Multiply {0} by {1}.", "Calculate {1} * {0}.",
                "What is the product of {0} and {1}?", "How much is {1} times {0}?", "{0} * {1} = ?")  # fmt: skip
    return _ask(random, wordings, (a, b), a * b, difficulty, unordered=True)


def _quotient(random: Random) -> Drawn:
    divisor = random.randint(2, 9)
    quotient, difficulty = (random.randint(2, 12), 3) if random.random() < 0.5 else (random.randint(13, 99), 4)
    wordings = ("What is {0} divided by {1}?", "Divide {0} by {1}.", "Calculate {0} / {1}.", "{0} / {1} = ?",
                "How many times does {1} go into {0}?")  # fmt: skip
    return _ask(random, wordings, (divisor * quotient, divisor), quotient, difficulty)


def _comparison(random: Random) -> Drawn:
    digits = random.choice((2, 3, 3))
    a, b = random.sample(range(10 ** (digits - 1), 10**digits), 2)
    if random.random() < 0.3:
        c = random.choice([n for n in (_number(random, digits) for _ in range(4)) if n not in (a, b)] or [a + b])
        largest = ("Which is the largest: {0}, {1} or {2}?", "Name the largest of {0}, {1} and {2}.")
        smallest = ("Which is the smallest: {0}, {1} or {2}?", "Name the smallest of {0}, {1} and {2}.")
        if random.random() < 0.5:
            return _ask(random, largest, (a, b, c), max(a, b, c), 3, unordered=True)
        return _ask(random, smallest, (a, b, c), min(a, b, c), 3, unordered=True)
    larger = ("Which is larger, {0} or {1}?", "Which number is greater: {0} or {1}?", "Name the bigger of {0} and {1}.")
    smaller = ("Which is smaller, {0} or {1}?", "Which number is less: {0} or {1}?", "Name the smaller of {0} and {1}.")
    if random.random() < 0.5:
        return _ask(random, larger, (a, b), max(a, b), digits - 1, unordered=True)
    return _ask(random, smaller, (a, b), min(a, b), digits - 1, unordered=True)


def _parity(random: Random) -> Drawn:
    a = _number(random, random.choice((2, 3)))
    wordings = ("Is {0} even or odd?", "Is the number {0} odd or even?", "Even or odd: {0}?")
    return _ask(random, wordings, (a,), "odd" if a % 2 else "even", 1)


def _successor(random: Random) -> Drawn:
    a = _number(random, random.choice((2, 3)))
    after = ("What number comes right after {0}?", "What is the next whole number after {0}?")
    before = ("What number comes right before {0}?", "What is the whole number just below {0}?")
    if random.random() < 0.5:
        return _ask(random, after, (a,), a + 1, 1)
    return _ask(random, before, (a,), a - 1, 2)


def _conversion(random: Random) -> Drawn:
    unit, into, factor, difficulty = random.choice(CONVERSIONS)
    a = random.randint(2, 12) if random.random() < 0.4 else random.randint(13, 99)
    wordings = (f"How many {into} are {{0}} {unit}?", f"Convert {{0}} {unit} to {into}.",
                f"{{0}} {unit} are how many {into}?", f"Express {{0}} {unit} in {into}.")  # fmt: skip
    drawn = _ask(random, wordings, (a,), a * factor, min(5, difficulty + (a > _LEARNT_BY_HEART)))
    return Drawn(f"{unit}|{drawn.key}", drawn.query, drawn.reference, drawn.difficulty)


def _story(random: Random) -> Drawn:
    name, thing, kind = random.choice(_NAMES), random.choice(_THINGS), random.random()
    if kind < 0.35:
        a, b = random.randint(5, 60), random.randint(2, 39)
        wordings = (f"{name} has {{0}} {thing} and gets {{1}} more. How many {thing} does {name} have now?",
                    f"{name} buys {{0}} {thing} and then {{1}} more. How many {thing} is that?")  # fmt: skip
        return _ask(random, wordings, (a, b), a + b, 3)
    if kind < 0.7:
        b, left = random.randint(2, 39), random.randint(1, 50)
        wordings = (f"{name} has {{0}} {thing} and gives away {{1}}. How many {thing} are left?",
                    f"{name} had {{0}} {thing} and lost {{1}}. How many {thing} remain?")  # fmt: skip
        return _ask(random, wordings, (b + left, b), left, 3)
    a, b = random.randint(2, 12), random.randint(2, 12)
    wordings = (f"{name} has {{0}} boxes with {{1}} {thing} each. How many {thing} are there in all?",
                f"There are {{0}} bags and each holds {{1}} {thing}. How many {thing} is that?")  # fmt: skip
    return _ask(random, wordings, (a, b), a * b, 3)


def _sequence(random: Random) -> Drawn:
    start, step = random.randint(1, 60), random.randint(2, 12)
    terms = tuple(start + step * i for i in range(4))
    wordings = ("Which number comes next: {0}, {1}, {2}, {3}?", "Continue the sequence {0}, {1}, {2}, {3}.",
                "{0}, {1}, {2}, {3}: what is the next number?")  # fmt: skip
    return _ask(random, wordings, terms, start + step * 4, 4)


def _chain(random: Random) -> Drawn:
    a, b, c = (random.randint(2, 49) for _ in range(3))
    if random.random() < 0.5:
        wordings = ("What is {0} + {1} + {2}?", "Add {0}, {1} and {2}.", "Calculate {0} + {1} + {2}.")
        return _ask(random, wordings, (a, b, c), a + b + c, 4)
    c = random.randint(1, a + b - 1)
    wordings = ("What is {0} + {1} - {2}?", "Add {0} and {1}, then subtract {2}.", "Calculate {0} + {1} - {2}.")
    return _ask(random, wordings, (a, b, c), a + b - c, 5)


def _double_half(random: Random) -> Drawn:
    a = _number(random, random.choice((2, 2, 3)))
    if random.random() < 0.5:
        return _ask(
            random,
            ("Double {0}.", "What is twice {0}?", "What is the double of {0}?"),
            (a,),
            a * 2,
            2 if a < 100 else 4,
        )
    a *= 2
    return _ask(
        random,
        ("Halve {0}.", "What is half of {0}?", "How much is one half of {0}?"),
        (a,),
        a // 2,
        3 if a < 100 else 4,
    )


def _percent(random: Random) -> Drawn:
    percent, unit = random.choice(((10, 10), (20, 5), (25, 4), (50, 2)))
    whole = unit * random.randint(2, 99)
    wordings = ("What is {0}% of {1}?", "How much is {0} percent of {1}?", "Calculate {0} percent of {1}.")
    return _ask(random, wordings, (percent, whole), whole * percent // 100, 4 if percent in (10, 50) else 5)


def mathematics_families() -> tuple[MathematicsFamily, ...]:
    """Every family, with its share among mathematics questions."""
    number: tuple[tuple[str, float, Callable[[Random], Drawn]], ...] = (
        ("sum", 3, _sum), ("difference", 3, _difference), ("product", 2, _product), ("quotient", 2, _quotient),
        ("comparison", 2, _comparison), ("conversion", 2, _conversion), ("story", 2, _story),
        ("sequence", 1.5, _sequence),
        ("chain", 1.5, _chain), ("double_half", 1.5, _double_half), ("percent", 1, _percent),
        ("successor", 1.5, _successor),
    )  # fmt: skip
    return (
        *(MathematicsFamily(name, "number", weight, draw) for name, weight, draw in number),
        MathematicsFamily("parity", "exact", 1, _parity),
    )
