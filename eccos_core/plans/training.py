"""What a verifier learns from: answers of a pool, graded, beside what was forecast before they were seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from eccos_core.domain import FloatArray, IntArray, OutcomeTable
from eccos_core.errors import InputError
from eccos_core.plans.state import length_ratio
from eccos_core.plans.texts import code_answers


@dataclass(frozen=True, slots=True, eq=False)
class GradedAnswers:
    """N questions, M models. All arrays are (N, M), NaN where unknown.

    forecast, output_tokens, cost_usd: forecast by a predictor that did not see these outcomes. quality: as graded.
    paid_usd: what each call really cost. codes: equal numbers are answers that say the same, -1 where unknown.
    features: by the names of `EVIDENCE`.
    """

    models: tuple[str, ...]
    forecast: FloatArray
    output_tokens: FloatArray
    cost_usd: FloatArray
    quality: FloatArray
    paid_usd: FloatArray
    codes: IntArray
    features: Mapping[str, FloatArray]

    @classmethod
    def of(
        cls,
        table: OutcomeTable,
        forecast: FloatArray,
        output_tokens: FloatArray,
        cost_usd: FloatArray,
        paid_usd: FloatArray | None = None,
    ) -> GradedAnswers:
        """Put a table beside held-out forecasts of its rows. All are (N, M), in the order of its models.

        paid_usd: what each call cost, by default the forecast. Raises `InputError` for another shape.
        """
        shape = table.quality.shape
        paid = cost_usd if paid_usd is None else paid_usd
        for name, values in (("forecast", forecast), ("output_tokens", output_tokens), ("cost_usd", cost_usd)):
            if values.shape != shape:
                raise InputError(
                    f"the {name} of a verifier's training rows has shape {values.shape}, must be {shape}: one number "
                    "for each question and model of the outcomes"
                )
        codes = np.full(shape, -1) if table.answers is None else code_answers(table.answers, {})
        features = dict(table.features)
        ratio = length_ratio(table.output_tokens, output_tokens)
        if not np.isnan(ratio).all():
            features["length_ratio"] = ratio
        return cls(table.models, forecast, output_tokens, cost_usd, table.quality, paid, codes, features)

    def __len__(self) -> int:
        return len(self.quality)

    @property
    def tells(self) -> bool:
        """Whether anything but lengths is known of the answers."""
        return bool((self.codes >= 0).any()) or any(
            name != "length_ratio" and bool((~np.isnan(values)).any()) for name, values in self.features.items()
        )

    def rows(self, index: IntArray) -> GradedAnswers:
        """The chosen questions."""
        return GradedAnswers(
            self.models,
            self.forecast[index],
            self.output_tokens[index],
            self.cost_usd[index],
            self.quality[index],
            self.paid_usd[index],
            self.codes[index],
            {name: values[index] for name, values in self.features.items()},
        )
