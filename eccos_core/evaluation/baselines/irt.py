"""IRT-Router: item response theory with the question's parameters read from its embedding (arXiv 2506.01048)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eccos_core.domain import Forecast
from eccos_core.evaluation.baselines.gradient_descent import minimise
from eccos_core.evaluation.baselines.tuning import fit_tuned
from eccos_core.evaluation.protocol import AnswerFunction, EncoderChoice, EvaluationSplit, TrainSplit, make_forecast
from eccos_core.io.optional import needs_extra

IrtSetting = tuple[int, float]  # (dimensions of ability, weight decay)


@dataclass(frozen=True, slots=True)
class IrtBaseline:
    """Forecast quality by the multidimensional two-parameter model, as IRT-Router's MIRT does (arXiv 2506.01048).

    The probability is sigmoid(a(q) . theta(m) - b(q)). Discrimination a = softplus(A x) and difficulty b = B x are read
    from the embedding x. The ability theta of each model is free. The authors read it from a profile of the model,
    which recorded outcomes do not have. Dimensions and weight decay are tuned. Output tokens are each model's mean.
    """

    name: str = "irt"
    dimensions: tuple[IrtSetting, ...] = ((25, 1e-5), (25, 1e-3), (25, 1e-2), (4, 1e-5), (4, 1e-3))
    reads: EncoderChoice = "text"

    def settings(self, train_split: TrainSplit) -> Sequence[IrtSetting]:
        """Return dimensions of ability and weight decays."""
        return self.dimensions

    def fit_settings(self, train_split: TrainSplit, settings: Sequence[IrtSetting]) -> Sequence[AnswerFunction]:
        """Train once per setting."""
        return [_fit(train_split, dimensions, decay) for dimensions, decay in settings]

    def fit(self, train_split: TrainSplit) -> AnswerFunction:
        """Choose the dimensions and the weight decay."""
        return fit_tuned(self, train_split)


def _fit(train_split: TrainSplit, dimensions: int, weight_decay: float) -> AnswerFunction:
    with needs_extra("local", "an evaluation baseline"):
        import torch

    generator = torch.Generator().manual_seed(0)
    width, models = train_split.vectors.shape[1], len(train_split.table.models)
    inputs = torch.from_numpy(np.ascontiguousarray(train_split.vectors))
    known = torch.from_numpy(train_split.known)
    quality = torch.from_numpy(np.nan_to_num(train_split.table.quality)).float()
    discrimination = (torch.randn(width, dimensions, generator=generator) / width**0.5).requires_grad_()
    difficulty = torch.zeros(width, 1, requires_grad=True)
    ability = (torch.randn(models, dimensions, generator=generator) / dimensions**0.5).requires_grad_()

    def logits(rows: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor = torch.nn.functional.softplus(rows @ discrimination) @ ability.T - rows @ difficulty
        return product

    def loss(index: torch.Tensor) -> torch.Tensor:
        entropy = torch.nn.functional.binary_cross_entropy_with_logits(
            logits(inputs[index]), quality[index], reduction="none"
        )
        return (entropy * known[index]).sum() / known[index].sum().clamp(min=1)

    minimise([discrimination, difficulty, ability], loss, len(inputs), generator, weight_decay)

    def answer(held_out: EvaluationSplit) -> Forecast:
        with torch.no_grad():
            forecast = torch.sigmoid(logits(torch.from_numpy(np.ascontiguousarray(held_out.vectors)))).numpy()
        return make_forecast(
            train_split,
            np.asarray(forecast, dtype=np.float64),
            train_split.price_table.typical_output_tokens,
            len(held_out),
        )

    return answer
