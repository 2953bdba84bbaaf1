"""A text encoder fine-tuned end to end (ECCOS-T (b)): `eccos fit` trains it, a router reads with it.

Requests are read by the fine-tuned encoder alone. The history stays in the vectors of the encoder that the
configuration names, which every fit starts from, so that it outlives each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from eccos_core.assembly.predictor import Progress, TrainingData, cached_encoder
from eccos_core.config import Config, SentenceTransformerConfig, TrainedConfig
from eccos_core.domain import Float32Array, IntArray, Outcome, OutcomeTable
from eccos_core.errors import InputError
from eccos_core.io.outcomes import with_models
from eccos_core.protocols import Encoder, HistoryNeighbors, OnlineHistory, Predictor

if TYPE_CHECKING:
    from eccos_core.predictors import FineTuning


BAR = 24  # characters of the progress bar


def is_fine_tuned(config: Config) -> bool:
    """Whether the predictor reads text with an encoder of its own."""
    return isinstance(config.predictor, TrainedConfig) and config.predictor.method == "fine_tuned"


def fine_tune_to_folder(
    config: Config,
    table: OutcomeTable,
    folder: Path,
    progress: Progress | None = None,
    settings: FineTuning | None = None,
) -> tuple[str, ...]:
    """Trains the encoder of the configuration on a table, and leaves it and its heads in the folder; the models' names.

    Interrupted and called again with the same outcomes it goes on after its last whole epoch. Raises `InputError` for
    an encoder that cannot be trained, and as `fine_tune`.
    """
    from eccos_core.encoders.model_folder import model_folder
    from eccos_core.predictors import FineTuning, fine_tune

    if not isinstance(config.encoder, SentenceTransformerConfig):
        raise InputError(
            f"{config.path}: fine-tuning starts from one sentence-transformers model; set eccos.encoder to minilm, or "
            "to the name or folder of another"
        )
    say = progress or (lambda _: None)
    chosen = settings or FineTuning(device=config.encoder.device)
    fine_tune(
        with_models(table, tuple(model.name for model in config.models)),
        model_folder(config.encoder.model),
        folder,
        chosen,
        progress=lambda done, total, loss: say(f"{_bar(done / total)} step {done} of {total}, loss {loss:.3f}"),
    )
    return tuple(model.name for model in config.models)


def _bar(share: float) -> str:
    full = round(BAR * share)
    return "█" * full + "░" * (BAR - full)


def load_fine_tuned_parts(config: Config) -> tuple[Encoder, Predictor]:
    """The encoder and the predictor that `eccos fit` left. Raises `ArtifactError`; `InputError` without a folder."""
    from eccos_core.predictors import load_fine_tuned

    if config.predictor.artifact is None:
        raise InputError(
            f"{config.path}: a fine-tuned predictor is trained by `eccos fit`, never at start; say in "
            "eccos.predictor where it is: {kind: trained, method: fine_tuned, artifact: FOLDER}"
        )
    device = config.encoder.device if isinstance(config.encoder, SentenceTransformerConfig) else "auto"
    encoder, predictor = load_fine_tuned(config.predictor.artifact, device=device)
    return encoder, predictor.for_pool([model.name for model in config.models])


def reencode(known: TrainingData, encoder: Encoder) -> TrainingData:
    """What is known, in the vectors of another encoder (remembered on disk)."""
    return TrainingData(known.table, cached_encoder(encoder).encode(known.table.queries))


class ReencodedHistory:
    """A history whose vectors come from another encoder than the router's: what is added is read again with it."""

    def __init__(self, history: OnlineHistory, encoder: Encoder) -> None:
        self.history = history
        self._encoder = encoder

    @classmethod
    def of(cls, history: OnlineHistory, encoder: Encoder, before: object) -> ReencodedHistory:
        """`before` where it is the same, so that what is remembered beside it goes on."""
        return before if isinstance(before, ReencodedHistory) and before.history is history else cls(history, encoder)

    def add(self, outcomes: Sequence[Outcome], vectors: Float32Array) -> int:
        """Add outcomes; their queries are encoded anew, whatever the vectors."""
        return self.history.add(outcomes, self._encoder.encode([outcome.query for outcome in outcomes]))

    def nearest(self, vectors: Float32Array, k: int) -> HistoryNeighbors:
        """For vectors of the history's own encoder."""
        return self.history.nearest(vectors, k)

    def table(self) -> tuple[OutcomeTable, Float32Array]:
        """As the history has it."""
        return self.history.table()

    def changes(self, since: int) -> tuple[int, IntArray]:
        """As the history has it."""
        return self.history.changes(since)

    def some(self, rows: IntArray) -> tuple[OutcomeTable, Float32Array]:
        """As the history has it."""
        return self.history.some(rows)

    def __len__(self) -> int:
        """As the history has it."""
        return len(self.history)
