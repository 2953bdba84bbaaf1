"""A configuration whose parts are built: the version in use, which the next one continues."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eccos_core.assembly.labeller import LoadedReward
    from eccos_core.config import Config
    from eccos_core.protocols import Encoder, OnlineHistory
    from eccos_core.routing.parts import Parts


@dataclass(frozen=True, slots=True, eq=False)
class Assembled:
    """The parts of a configuration, and what they were made from.

    `encoder` and `history` are those that the configuration names. A fine-tuned predictor gives its own encoder to
    the parts.
    """

    config: Config
    encoder: Encoder
    history: OnlineHistory
    parts: Parts
    reward: LoadedReward | None = None
