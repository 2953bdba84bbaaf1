"""Turn latent targets into a forecast: calibrated quality, output tokens and standard errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eccos_core.domain import FloatArray, Forecast, OutcomeTable
from eccos_core.predictors.ensemble.calibration import ProbabilityCalibration
from eccos_core.predictors.ensemble.standard_error import StandardErrorModel
from eccos_core.predictors.ensemble.token_lengths import TokenLengthModel, fit_token_lengths
from eccos_core.predictors.targets.latent import LatentTargets


@dataclass(frozen=True, slots=True, eq=False)
class ForecastHead:
    """The last stage of a predictor, fitted on held-out predictions of a history."""

    latent_targets: LatentTargets
    calibration: ProbabilityCalibration
    token_lengths: TokenLengthModel
    standard_errors: StandardErrorModel

    @classmethod
    def fit(
        cls,
        latent_targets: LatentTargets,
        held_out: FloatArray,
        table: OutcomeTable,
        calibration: ProbabilityCalibration,
    ) -> ForecastHead:
        """Fit on held-out predictions (N, C) of a table's rows, shrunk as forecasts will be. The calibration is given.

        It is that of the predictions before shrinkage. Fitted afterwards, it would stretch them again.
        """
        raw = latent_targets.quality(held_out)
        token_lengths = fit_token_lengths(latent_targets.log_tokens(held_out), table.output_tokens)
        standard_errors = StandardErrorModel.fit(table, calibration.apply(raw))
        return cls(latent_targets, calibration, token_lengths, standard_errors)

    def forecast(
        self, models: tuple[str, ...], latent_targets: FloatArray, support: FloatArray, familiarity: FloatArray
    ) -> Forecast:
        """Forecast R questions.

        latent_targets (R, C): already shrunk towards the prior. support (R,): the effective number of neighbours
        behind each forecast. familiarity (R,): in [0, 1].
        """
        logs = self.latent_targets.log_tokens(latent_targets)
        tokens = self.token_lengths.mean(logs, self.latent_targets.tokens(latent_targets))
        return Forecast(
            models=models,
            quality=self.calibration.apply(self.latent_targets.quality(latent_targets)),
            quality_se=self.standard_errors.standard_error(support, familiarity),
            output_tokens=tokens,
            output_tokens_high=self.token_lengths.high_quantile(logs, tokens),
            familiarity=np.asarray(familiarity),
        )
