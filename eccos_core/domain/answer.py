"""What an answer tells about itself, once a model has given it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from eccos_core.errors import InputError

ANSWER_FEATURES = ("mean_logprob", "least_logprob", "cut_off", "filtered", "refuses", "valid", "reward", "judge")
"""The names of an answer's features, in outcomes files as in `AnswerConfidence`."""


@dataclass(frozen=True, slots=True)
class AnswerConfidence:
    """What an answer tells about itself. None: unknown.

    - `mean_logprob`, `least_logprob`: natural logarithms of token probabilities, at most 0.
    - `length_ratio`: output tokens over the forecast.
    - `cut_off`, `filtered`: 1.0 if a length limit, or a content filter, ended it.
    - `refuses`: 1.0 if the model refuses to answer, or says that it does not know.
    - `valid`: 1.0 if what the request asked for parses (JSON schema, tool arguments, code), 0.0 if it does not.
    - `agreement`: the share of the other answers to this request that say the same.
    - `reward`, `judge`: what a reward model, and a judge, think of it, in [0, 1].
    - `quality`: the verifier's probability that the answer is good, from all of these.

    Raises `InputError` for a share or probability outside [0, 1] and for a log-probability above 0.
    """

    mean_logprob: float | None = None
    least_logprob: float | None = None
    length_ratio: float | None = None
    cut_off: float | None = None
    filtered: float | None = None
    refuses: float | None = None
    valid: float | None = None
    agreement: float | None = None
    reward: float | None = None
    judge: float | None = None
    quality: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                check_answer_feature(field.name, value)

    @property
    def features(self) -> dict[str, float]:
        """The known features by name, as an outcomes file keeps them."""
        found = {name: getattr(self, name) for name in ANSWER_FEATURES}
        return {name: value for name, value in found.items() if value is not None}


def check_answer_feature(name: str, value: float) -> None:
    """Raise `InputError` for a feature that is out of its range."""
    if name.endswith("logprob"):
        if not (math.isfinite(value) and value <= 0):
            raise InputError(f"{name} is {value}, must be a logarithm of a probability, at most 0")
    elif name == "length_ratio":
        if not (math.isfinite(value) and value >= 0):
            raise InputError(f"{name} is {value}, must be a number >= 0")
    elif not 0 <= value <= 1:
        raise InputError(f"{name} is {value}, must be in [0, 1]")
