"""A text encoder that is fine-tuned end to end (ECCOS-T (b)): `eccos fit` trains it, and a router reads with it.

The fine-tuned encoder alone reads requests. The history keeps the vectors of the encoder that the configuration names.
Every fit starts from that encoder, so the history outlives each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from eccos_core.assembly.predictor import Progress, TrainingData, cached_encoder
from eccos_core.config import Config, SentenceTransformerConfig, TrainedConfig
from eccos_core.domain import Float32Array, IntArray, Outcome, OutcomeTable
from eccos_core.errors import InputError
from eccos_core.io.outcome_tables import with_models
from eccos_core.protocols import Encoder, HistoryNeighbors, OnlineHistory, Predictor

if TYPE_CHECKING:
    from eccos_core.predictors import FineTuning


BAR = 24  # characters of the progress bar


def is_fine_tuned(config: Config) -> bool:
    """Whether the predictor reads text with its own encoder."""
    return isinstance(config.predictor, TrainedConfig) and config.predictor.method == "fine_tuned"


def fine_tune_to_folder(
    config: Config,
    table: OutcomeTable,
    folder: Path,
    progress: Progress | None = None,
    settings: FineTuning | None = None,
) -> tuple[str, ...]:
    """Train the encoder of the configuration on a table, and write it with its heads to a folder.

    Returns the models' names. A run that was interrupted goes on after its last whole epoch when it is called again
    with the same outcomes. Raises `InputError` for an encoder that cannot be trained, and as `fine_tune`.
    """
    from eccos_core.encoders.model_folder import model_folder
    from eccos_core.predictors import FineTuning, fine_tune

    if not isinstance(config.encoder, SentenceTransformerConfig):
        raise InputError(
            f"{config.path}: fine-tuning starts from one sentence-transformers model. Set eccos.encoder to minilm, or "
            "to the name or folder of another."
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
    """Load the encoder and the predictor that `eccos fit` wrote.

    Raises `ArtifactError` for a folder that does not fit, and `InputError` when the configuration names none.
    """
    from eccos_core.predictors import load_fine_tuned

    if config.predictor.artifact is None:
        raise InputError(
            f"{config.path}: a fine-tuned predictor is trained by `eccos fit`, never at start. Say in "
            "eccos.predictor where it is: {kind: trained, method: fine_tuned, artifact: FOLDER}."
        )
    device = config.encoder.device if isinstance(config.encoder, SentenceTransformerConfig) else "auto"
    encoder, predictor = load_fine_tuned(config.predictor.artifact, device=device)
    return encoder, predictor.for_pool([model.name for model in config.models])


def reencode(data: TrainingData, encoder: Encoder) -> TrainingData:
    """Return the data in the vectors of another encoder. They are cached on disk."""
    return TrainingData(data.table, cached_encoder(encoder).encode(data.table.queries))


class ReencodedHistory:
    """A history whose vectors come from another encoder than the router's. It encodes again what is added."""

    def __init__(self, history: OnlineHistory, encoder: Encoder) -> None:
        self.history = history
        self._encoder = encoder

    def add(self, outcomes: Sequence[Outcome], vectors: Float32Array) -> int:
        """Add outcomes. Their queries are encoded again, whatever the vectors."""
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
