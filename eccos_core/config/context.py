"""What reading a configuration file needs besides the file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from eccos_core.config.environment import Environment
from eccos_core.config.litellm_prices import PriceMap
from eccos_core.config.problems import Problems


@dataclass(frozen=True, slots=True)
class ParseContext:
    """The folder of the file, environment variables, model prices, and the problems found so far."""

    folder: Path
    environment: Environment
    prices: PriceMap
    problems: Problems
