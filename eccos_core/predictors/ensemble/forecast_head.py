"""Turn latent targets into a forecast: calibrated quality, output tokens and standard errors."""

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
    """The last stage of a predictor, calibrated on the held-out forecasts of a history."""

    latent_targets: LatentTargets
    calibration: ProbabilityCalibration
    lengths: TokenLengthModel
    standard_errors: StandardErrorModel

    @classmethod
    def of(
        cls,
        latent_targets: LatentTargets,
        held_out: FloatArray,
        table: OutcomeTable,
        calibration: ProbabilityCalibration | None = None,
    ) -> ForecastHead:
        """From held-out forecasts (N, C) of a table's rows; calibrated on them unless a calibration is given."""
        raw = latent_targets.quality(held_out)
        chosen = fit_calibration(raw, table.quality) if calibration is None else calibration
        lengths = fit_token_lengths(latent_targets.log_tokens(held_out), table.output_tokens)
        return cls(latent_targets, chosen, lengths, StandardErrorModel.of(table, chosen.apply(raw)))

    def forecast(
        self, models: tuple[str, ...], latent_targets: FloatArray, support: FloatArray, familiarity: FloatArray
    ) -> Forecast:
        """Make the forecast for R questions.

        latent_targets (R, C): already shrunk towards the prior. support (R,): the outcomes behind each forecast.
        familiarity (R,): in [0, 1].
        """
        logs = self.latent_targets.log_tokens(latent_targets)
        tokens = self.lengths.mean(logs, self.latent_targets.tokens(latent_targets))
        return Forecast(
            models=models,
            quality=self.calibration.apply(self.latent_targets.quality(latent_targets)),
            quality_se=self.standard_errors.standard_error(support, familiarity),
            output_tokens=tokens,
            output_tokens_high=self.lengths.high(logs, tokens),
            familiarity=np.asarray(familiarity),
        )
