"""What a plan knows so far: the forecast of each request, which models were asked, and what their answers tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from eccos_core.domain import AnswerConfidence, BoolArray, FloatArray, Forecast, IntArray
from eccos_core.errors import InputError
from eccos_core.plans.evidence import EVIDENCE


@dataclass(frozen=True, slots=True, eq=False)
class PlanState:
    """R requests after the same number n of calls each. n is 0 before the first call.

    - `models`: the M models, in the order of all columns.
    - `quality`, `cost_usd`, `output_tokens` (R, M): the forecast before any call. Tokens may be NaN.
    - `asked` (R, n): columns of the models asked, in this order.
    - `agreement` (R, n, n) in [0, 1]: how far two answers say the same. NaN where one of them is unknown. The diagonal
      is 1 where the answer is known, else NaN.
    - `features`: maps a name of `EVIDENCE` to numbers (R, n), NaN where unknown.

    Raises `InputError` for shapes that do not fit.
    """

    models: tuple[str, ...]
    quality: FloatArray
    cost_usd: FloatArray
    output_tokens: FloatArray
    asked: IntArray
    agreement: FloatArray
    features: Mapping[str, FloatArray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rows, count = self.asked.shape
        shape = (rows, len(self.models))
        for name in ("quality", "cost_usd", "output_tokens"):
            if getattr(self, name).shape != shape:
                raise InputError(f"plan state: {name} has shape {getattr(self, name).shape}, must be {shape}")
        if self.agreement.shape != (rows, count, count):
            raise InputError(
                f"plan state: agreement has shape {self.agreement.shape}, must be {(rows, count, count)}: one number "
                "for each pair of answers"
            )
        for name, values in self.features.items():
            if name not in EVIDENCE:
                raise InputError(f"plan state: unknown feature {name!r}. There are: {', '.join(EVIDENCE)}.")
            if values.shape != (rows, count):
                raise InputError(f"plan state: {name} has shape {values.shape}, must be {(rows, count)}")

    @classmethod
    def start(
        cls, models: Sequence[str], quality: FloatArray, cost_usd: FloatArray, output_tokens: FloatArray | None = None
    ) -> PlanState:
        """Return the state before the first call. Arrays are (R, M), or (M,) for one request."""
        quality, cost_usd = np.atleast_2d(quality), np.atleast_2d(cost_usd)
        tokens = np.full(quality.shape, np.nan) if output_tokens is None else np.atleast_2d(output_tokens)
        rows = len(quality)
        return cls(
            tuple(models),
            quality,
            cost_usd,
            tokens,
            np.empty((rows, 0), dtype=np.int64),
            np.empty((rows, 0, 0)),
        )

    @classmethod
    def of_forecast(cls, forecast: Forecast, cost_usd: FloatArray) -> PlanState:
        """Return the state before the first call of all requests of a forecast. cost_usd (R, M): what a call costs."""
        return cls.start(forecast.models, forecast.quality, cost_usd, forecast.output_tokens)

    def __len__(self) -> int:
        return len(self.asked)

    @property
    def calls(self) -> int:
        """The number n of answers so far."""
        return int(self.asked.shape[1])

    @property
    def known(self) -> BoolArray:
        """(R, n) whether the answer is known."""
        return np.asarray(~np.isnan(np.diagonal(self.agreement, axis1=1, axis2=2)))

    def after(
        self,
        model: str,
        confidence: AnswerConfidence | None = None,
        agreement: Sequence[float | None] = (),
        *,
        answer_known: bool = True,
    ) -> PlanState:
        """Return the state of one request after another answer. For several requests use `after_each`.

        agreement: with each answer so far, None where one of the two is unknown. It may be empty if all are unknown.
        answer_known: whether other answers can be compared with this one. Raises `InputError` for an unknown model.
        """
        if model not in self.models:
            raise InputError(f"{model} is not in this plan's pool, which is {', '.join(self.models)}")
        pairs = np.array([np.nan if each is None else each for each in agreement or [None] * self.calls], dtype=float)
        if len(pairs) != self.calls:
            raise InputError(f"{len(pairs)} numbers of agreement, but there are {self.calls} answers so far")
        found = {} if confidence is None else confidence.features
        if confidence is not None and confidence.length_ratio is not None:
            found = {**found, "length_ratio": confidence.length_ratio}
        return self.after_each(
            np.array([self.models.index(model)]),
            {name: np.array([value]) for name, value in found.items()},
            pairs[None, :],
            np.array([answer_known]),
        )

    def after_each(
        self, model: IntArray, features: Mapping[str, FloatArray], agreement: FloatArray, answer_known: BoolArray
    ) -> PlanState:
        """Return the state after one more answer to each of R requests.

        model (R,): columns. features: numbers (R,). agreement (R, n): with the answers so far. answer_known (R,).
        """
        rows, count = self.asked.shape
        table = np.full((rows, count + 1, count + 1), np.nan)
        table[:, :count, :count] = self.agreement
        pairs = np.where(answer_known[:, None] & self.known, agreement, np.nan)
        table[:, count, :count] = table[:, :count, count] = pairs
        table[:, count, count] = np.where(answer_known, 1.0, np.nan)
        nothing, unknown = np.full((rows, count), np.nan), np.full(rows, np.nan)
        names = dict.fromkeys((*self.features, *features))
        told = {
            name: np.column_stack([self.features.get(name, nothing), features.get(name, unknown)]) for name in names
        }
        return replace(self, asked=np.column_stack([self.asked, model]), agreement=table, features=told)

    def rows(self, index: IntArray) -> PlanState:
        """Return the state of the chosen requests."""
        return PlanState(
            self.models,
            self.quality[index],
            self.cost_usd[index],
            self.output_tokens[index],
            self.asked[index],
            self.agreement[index],
            {name: values[index] for name, values in self.features.items()},
        )


def length_ratio(output_tokens: FloatArray, forecast: FloatArray) -> FloatArray:
    """Return real output tokens over their forecast, NaN where one is unknown or the forecast is 0."""
    known = ~np.isnan(output_tokens) & (forecast > 0)
    return np.where(known, output_tokens / np.where(known, forecast, 1.0), np.nan)
