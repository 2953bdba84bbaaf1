"""The policies that a configuration names, each with what decides its single requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from eccos_core.assembly.predictor import build_steering
from eccos_core.routing.floor_map import FloorMap
from eccos_core.routing.named_policies import NamedPolicy, built_in_policies

if TYPE_CHECKING:
    from eccos_core.config import Config
    from eccos_core.predictors.training_forecast import TrainingForecast


def build_policies(config: Config, floor_map: FloorMap, training: TrainingForecast) -> dict[str, NamedPolicy]:
    """Build the named policies: `cheap`, `best`, and those of `eccos.policies`. Raises as `build_steering` does."""
    own = {
        name: NamedPolicy(policy, build_steering(config, floor_map.apply(policy), training))
        for name, policy in config.policies.items()
    }
    return {**built_in_policies(), **own}


def continue_accounts(new: Mapping[str, NamedPolicy], old: Mapping[str, NamedPolicy]) -> None:
    """Go on with the accounts of the streams whose policy stays."""
    from eccos_core.streaming import StreamController

    for name, named in new.items():
        steering, before = named.steering, old[name].steering if name in old else None
        if not (isinstance(steering, StreamController) and isinstance(before, StreamController)):
            continue
        if steering.target == before.target:
            steering.take_over(before)
