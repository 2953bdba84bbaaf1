"""From signals to a forecast: calibrated quality, tokens, and how far each may be off."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eccos_core.domain import FloatArray, Forecast, OutcomeTable
from eccos_core.predictors.ensemble.calibration import ProbabilityCalibration, fit_calibration
from eccos_core.predictors.ensemble.standard_error import StandardErrorModel
from eccos_core.predictors.ensemble.token_lengths import TokenLengthModel, fit_token_lengths
from eccos_core.predictors.targets.latent import LatentTargets


@dataclass(frozen=True, slots=True, eq=False)
class ForecastHead:
    """What signals mean, as far as a history's own outcomes bear them out."""

    signals: LatentTargets
    calibration: ProbabilityCalibration
    lengths: TokenLengthModel
    standard_errors: StandardErrorModel

    @classmethod
    def of(
        cls,
        signals: LatentTargets,
        held_out: FloatArray,
        table: OutcomeTable,
        calibration: ProbabilityCalibration | None = None,
    ) -> ForecastHead:
        """From held-out forecasts (N, C) of a table's rows; calibrated on them unless a calibration is given."""
        raw = signals.quality(held_out)
        chosen = fit_calibration(raw, table.quality) if calibration is None else calibration
        lengths = fit_token_lengths(signals.log_tokens(held_out), table.output_tokens)
        return cls(signals, chosen, lengths, StandardErrorModel.of(table, chosen.apply(raw)))

    def forecast(
        self, models: tuple[str, ...], signals: FloatArray, support: FloatArray, familiarity: FloatArray
    ) -> Forecast:
        """signals (R, C), drawn towards the prior already; support (R,): outcomes behind each; familiarity (R,)."""
        logs = self.signals.log_tokens(signals)
        tokens = self.lengths.mean(logs, self.signals.tokens(signals))
        return Forecast(
            models=models,
            quality=self.calibration.apply(self.signals.quality(signals)),
            quality_se=self.standard_errors.standard_error(support, familiarity),
            output_tokens=tokens,
            output_tokens_high=self.lengths.high(logs, tokens),
            familiarity=np.asarray(familiarity),
        )
