"""What every way of collecting works on: the questions, the pool, and where the outcomes go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eccos_core.collecting import CollectOptions, Question
    from eccos_core.config import Config
    from eccos_core.protocols import Backend


@dataclass(frozen=True, slots=True)
class CollectRun:
    """One call of `eccos collect`. `source` names where the questions come from. `json` prints the report as JSON."""

    questions: list[Question]
    config: Config
    backend: Backend
    out: Path
    options: CollectOptions
    source: str
    json: bool
