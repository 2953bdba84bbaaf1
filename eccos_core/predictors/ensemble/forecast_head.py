"""Turn latent targets into a forecast: calibrated quality, output tokens or cost, and standard errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eccos_core.domain import FloatArray, Forecast, OutcomeTable
from eccos_core.predictors.ensemble.calibration import ProbabilityCalibration
from eccos_core.predictors.ensemble.group_error import GroupErrorModel
from eccos_core.predictors.ensemble.standard_error import StandardErrorModel
from eccos_core.predictors.ensemble.token_lengths import TokenLengthModel, fit_token_lengths
from eccos_core.predictors.targets.latent import LatentTargets
from eccos_core.predictors.targets.prior import HIGH_QUANTILE_OVER_MEAN, TYPICAL_OUTPUT_TOKENS


@dataclass(frozen=True, slots=True, eq=False)
class ForecastHead:
    """The last stage of a predictor, fitted on held-out predictions of a history.

    usd_per_unit (M,): see `fit_cost_units`. NaN where a model's length is in tokens.
    """

    latent_targets: LatentTargets
    calibration: ProbabilityCalibration
    token_lengths: TokenLengthModel
    standard_errors: StandardErrorModel
    group_errors: GroupErrorModel
    usd_per_unit: FloatArray

    @classmethod
    def fit(
        cls,
        latent_targets: LatentTargets,
        held_out: FloatArray,
        table: OutcomeTable,
        usd_per_unit: FloatArray,
        calibration: ProbabilityCalibration,
        group_errors: GroupErrorModel,
    ) -> ForecastHead:
        """Fit on held-out predictions (N, C) of a table's rows, shrunk as forecasts will be.

        The calibration is that of the predictions before shrinkage. Fitted afterwards, it would stretch them again.
        The table holds cost in place of tokens as `usd_per_unit` says.
        """
        raw = latent_targets.quality(held_out)
        token_lengths = fit_token_lengths(latent_targets.log_tokens(held_out), table.output_tokens)
        standard_errors = StandardErrorModel.fit(table, calibration.apply(raw))
        return cls(latent_targets, calibration, token_lengths, standard_errors, group_errors, usd_per_unit)

    def forecast(
        self,
        models: tuple[str, ...],
        latent_targets: FloatArray,
        support: FloatArray,
        nearness: FloatArray,
        unseen: FloatArray,
    ) -> Forecast:
        """Forecast R questions.

        latent_targets (R, C): already shrunk towards the prior. support (R,): the effective number of neighbours
        behind each forecast. nearness (R,): in [0, 1]. unseen (R,): the probability of a group that the history lacks.
        """
        familiarity = nearness * self.group_errors.support(unseen)
        group_error = self.group_errors.standard_error(unseen)
        logs = self.latent_targets.log_tokens(latent_targets)
        length = self.token_lengths.mean(logs, self.latent_targets.tokens(latent_targets))
        high = self.token_lengths.high_quantile(logs, length)
        in_tokens = np.isnan(self.usd_per_unit)
        return Forecast(
            models=models,
            quality=self.calibration.apply(self.latent_targets.quality(latent_targets)),
            quality_se=self.standard_errors.standard_error(support, nearness, group_error),
            output_tokens=np.where(in_tokens, length, TYPICAL_OUTPUT_TOKENS),
            output_tokens_high=np.where(in_tokens, high, TYPICAL_OUTPUT_TOKENS * HIGH_QUANTILE_OVER_MEAN),
            familiarity=np.asarray(familiarity),
            group_error=group_error,
            cost_usd=None if in_tokens.all() else length * self.usd_per_unit,
            cost_usd_high=None if in_tokens.all() else high * self.usd_per_unit,
        )
