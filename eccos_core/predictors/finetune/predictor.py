"""ECCOS-T (b) of the paper: a text encoder, fine-tuned end to end with a quality head and a length head.

The encoder (any Hugging Face encoder in a folder) takes the mean over tokens and scales it to length one. The quality
head multiplies the vector by a low-rank embedding of each model. The length head gives a distribution over buckets of
log tokens (ECCOS, arXiv 2502.20576, section 4.2). You get an `Encoder`, and a `Predictor` that reads its vectors.

Use a GPU (it trains in bfloat16 there). A CPU works too, slowly. A checkpoint is written after every epoch. After an
interruption, the same call resumes from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eccos_core.domain import BoolArray, Float32Array, FloatArray, Forecast, OutcomeTable
from eccos_core.errors import ArtifactError, InputError, UnknownModelError
from eccos_core.predictors.ensemble.group_error import GroupErrorModel
from eccos_core.predictors.ensemble.standard_error import StandardErrorModel
from eccos_core.predictors.finetune.settings import FORMAT, VERSION, FineTuning, Progress
from eccos_core.predictors.targets.prior import HIGH_QUANTILE

MIN_ROWS = 8


@dataclass(frozen=True, slots=True, eq=False)
class FineTunedHeads:
    """The heads on the encoder: log-odds of quality, and scores of K buckets of length per model.

    quality (D, r), models (r, M), quality_bias (M,); length (D, M K), length_bias (M K,); tokens (M, K): mean tokens
    of each model in each bucket.
    """

    quality: Float32Array
    models: Float32Array
    quality_bias: Float32Array
    length: Float32Array
    length_bias: Float32Array
    tokens: Float32Array


@dataclass(frozen=True, slots=True, eq=False)
class FineTunedPredictor:
    """A fitted predictor (implements `Predictor`) that reads the vectors of the encoder that was trained with it."""

    models: tuple[str, ...]
    heads: FineTunedHeads
    standard_errors: StandardErrorModel

    def predict(self, vectors: Float32Array, input_tokens: FloatArray) -> Forecast:
        """Forecast from vectors (R, D) of the fine-tuned encoder and input_tokens (R,). Familiarity is always 1.

        Raises `InputError` for other shapes.
        """
        heads = self.heads
        if vectors.ndim != 2 or vectors.shape[1] != len(heads.quality):
            raise InputError(
                f"vectors have shape {vectors.shape}, this predictor reads (R, {len(heads.quality)}) from the encoder "
                "that was fine-tuned with it"
            )
        if np.shape(input_tokens) != (len(vectors),):
            raise InputError(f"input_tokens have shape {np.shape(input_tokens)}, must be ({len(vectors)},)")
        logits = vectors @ heads.quality @ heads.models + heads.quality_bias
        chances = _softmax((vectors @ heads.length + heads.length_bias).reshape(len(vectors), *heads.tokens.shape))
        mean = np.einsum("rmk,mk->rm", chances, heads.tokens)
        at = (np.cumsum(chances, axis=2) < HIGH_QUANTILE).sum(axis=2).clip(max=heads.tokens.shape[1] - 1)
        high = heads.tokens[np.arange(len(self.models)), at]
        near, group_errors = np.ones(len(vectors)), GroupErrorModel.usual(len(self.models))
        group_error = group_errors.standard_error(group_errors.unseen(near))
        return Forecast(
            models=self.models,
            quality=(1 / (1 + np.exp(-logits.astype(np.float64)))),
            quality_se=self.standard_errors.standard_error(np.full(len(vectors), np.inf), near, group_error),
            output_tokens=mean.astype(np.float64),
            output_tokens_high=np.maximum(high, mean).astype(np.float64),
            familiarity=near,
            group_error=group_error,
        )

    def for_pool(self, models: Sequence[str]) -> FineTunedPredictor:
        """Return this predictor with these models, in this order. Raises `UnknownModelError`."""
        for name in models:
            if name not in self.models:
                raise UnknownModelError(name, self.models)
        heads, standard_errors, at = self.heads, self.standard_errors, [self.models.index(name) for name in models]
        (count, buckets), width = heads.tokens.shape, len(heads.quality)
        chosen = FineTunedHeads(
            quality=heads.quality,
            models=heads.models[:, at],
            quality_bias=heads.quality_bias[at],
            length=heads.length.reshape(width, count, buckets)[:, at].reshape(width, -1),
            length_bias=heads.length_bias.reshape(count, buckets)[at].ravel(),
            tokens=heads.tokens[at],
        )
        return FineTunedPredictor(
            tuple(models),
            chosen,
            StandardErrorModel(
                standard_errors.residual_variance[at],
                standard_errors.forecast_variance[at],
                standard_errors.counts[at],
            ),
        )


def _softmax(scores: Float32Array) -> Float32Array:
    raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True), dtype=np.float32)


class FineTunedEncoder:
    """The fine-tuned encoder in a folder (implements `Encoder`). Reads the first `max_tokens` tokens of a text.

    Raises `ArtifactError` when the folder holds none.
    """

    def __init__(self, folder: str | Path, *, device: str = "auto") -> None:
        from eccos_core.predictors.finetune.text_encoder import load_encoder

        self._text = load_encoder(Path(folder), device)

    @property
    def name(self) -> str:
        """`finetuned:`, a digest of the weights, and the number of tokens it reads."""
        return self._text.name

    @property
    def dimensions(self) -> int:
        """D."""
        return self._text.dimensions

    def encode(self, texts: Sequence[str]) -> Float32Array:
        """Return (len(texts), D) float32 vectors of unit length."""
        return self._text.encode(texts)


def fine_tune(
    table: OutcomeTable,
    encoder: str | Path,
    folder: str | Path,
    settings: FineTuning | None = None,
    *,
    progress: Progress | None = None,
) -> tuple[FineTunedEncoder, FineTunedPredictor]:
    """Train encoder and heads on a table of outcomes, and write both to `folder`.

    `encoder`: a folder with a Hugging Face encoder and its tokenizer. Call it again with the same table and settings
    after an interruption: it resumes after the last whole epoch, and ends as if nothing had happened.

    Raises `InputError` for fewer than 8 questions, or a model without any outcome, and `ArtifactError` for a folder
    that holds something else.
    """
    from eccos_core.predictors.finetune.training import train_encoder

    if len(table) < MIN_ROWS:
        raise InputError(f"fine-tuning needs at least {MIN_ROWS} questions, the table has {len(table)}")
    unseen = [name for name, seen in zip(table.models, _seen(table), strict=True) if not seen]
    if unseen:
        raise InputError(f"no outcome of {', '.join(unseen)}: a fine-tuned predictor cannot assume a model's quality")
    train_encoder(
        table, Path(encoder), Path(folder), settings or FineTuning(), progress or (lambda done, total, loss: None)
    )
    return load_fine_tuned(folder, device=(settings or FineTuning()).device)


def _seen(table: OutcomeTable) -> BoolArray:
    return np.asarray((~np.isnan(table.quality)).any(axis=0), dtype=np.bool_)


def load_fine_tuned(folder: str | Path, *, device: str = "auto") -> tuple[FineTunedEncoder, FineTunedPredictor]:
    """Load what `fine_tune` wrote. Raises `ArtifactError` when it is missing, unfinished or damaged."""
    import json

    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    folder = Path(folder)
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        if (manifest.get("format"), manifest.get("version")) != (FORMAT, VERSION):
            raise ArtifactError(
                f"{folder}: no fine-tuned predictor of this version of eccos (format {manifest.get('format')!r}, "
                f"version {manifest.get('version')}); run `eccos fit` with {{kind: trained, method: fine_tuned}}"
            )
        arrays = load_file(str(folder / "heads.safetensors"))
        heads = FineTunedHeads(**{name: arrays[name] for name in FineTunedHeads.__dataclass_fields__})
        standard_errors = StandardErrorModel(
            *(arrays[name].astype(np.float64) for name in ("residual_variance", "forecast_variance", "counts"))
        )
        models = tuple(manifest["models"])
        weights = str(manifest["weights"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise ArtifactError(f"{folder}: no fine-tuned predictor here, or not a whole one ({error})") from error
    encoder = FineTunedEncoder(folder / "encoder", device=device)
    if weights not in encoder.name:
        raise ArtifactError(
            f"{folder}: encoder and heads are of different epochs, because a run was killed between them. "
            "Run `eccos fit` again: it resumes."
        )
    return encoder, FineTunedPredictor(models, heads, standard_errors)
