"""Read the values of `eccos simulate`: what is asked of the stream, and how each model is served."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from eccos_core.cli.engine_spec import parse_engine
from eccos_core.cli.options import split_names
from eccos_core.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from eccos_core.simulation import Service
    from eccos_core.simulation.pool_engine import EngineService
    from eccos_core.streaming import FloorTarget, RateTarget

DEFAULT_SLOTS, DEFAULT_SPEED = 8, 60.0


def parse_target(
    floor: float | None,
    per_request: float | None,
    per_hour: float | None,
    per_day: float | None,
    kept: tuple[Literal["mean", "window"], int, float | Literal["history", "none"]],
) -> FloorTarget | RateTarget:
    """Return what is asked of the stream: the floor with its promise, or a budget. Raises `InputError`."""
    from eccos_core.streaming import FloorTarget, RateTarget

    given = [value for value in (floor, per_request, per_hour, per_day) if value is not None]
    if len(given) != 1:
        raise InputError("give exactly one of --floor, --usd-per-request, --usd-per-hour and --usd-per-day")
    if floor is not None:
        promise, horizon, insurance = kept
        return FloorTarget(floor, promise, horizon, floor_insurance=insurance)
    if per_request is not None:
        return RateTarget(per_request, "request")
    return RateTarget(per_hour, "hour") if per_hour is not None else RateTarget(given[0], "day")


def parse_insurance(text: str) -> float | Literal["history", "none"]:
    """Read `--floor-insurance`. Raises `InputError`."""
    match text:
        case "history" | "none" as insurance:
            return insurance
    try:
        return float(text)
    except ValueError:
        raise InputError(f"--floor-insurance is {text!r}, it must be none, history or a quality in [0, 1]") from None


def parse_services(
    models: tuple[str, ...],
    slots: list[str] | None,
    speed: list[str] | None,
    first_token_s: float,
    engines: list[str] | None,
) -> dict[str, Service | EngineService]:
    """Return how each model is served: by its engine, or by slots of one speed. Raises `InputError`."""
    from eccos_core.simulation import Service
    from eccos_core.simulation.pool_engine import EngineService

    slot_counts = _by_model("--slots", slots, models)
    speeds = _by_model("--speed", speed, models)
    served: dict[str, Service | EngineService] = {}
    for spec in map(parse_engine, engines or ()):
        if spec.serves is None:
            raise InputError("--engine beside --data needs serves=MODEL, the model of the outcomes that it serves")
        if spec.serves not in models or spec.serves in served:
            raise InputError(
                f"--engine has serves={spec.serves}, must be one of {', '.join(models)}, each at most once"
                f"{did_you_mean(spec.serves, models)}"
            )
        if spec.serves in speeds:
            raise InputError(f"--speed names {spec.serves}, whose engine says how fast it is. Drop it there.")
        if spec.learn is not None:
            raise InputError("--engine has learn=, but beside --data the training questions teach. Drop it.")
        count = slot_counts.get(spec.serves)
        served[spec.serves] = EngineService(spec.settings(), None if count is None else int(count))
    for name in models:
        slot_count = slot_counts.get(name, slot_counts.get("", DEFAULT_SLOTS))
        latency = Service(int(slot_count), first_token_s, speeds.get(name, speeds.get("", DEFAULT_SPEED)))
        served.setdefault(name, latency)
    return served


def _by_model(option: str, given: list[str] | None, models: tuple[str, ...]) -> dict[str, float]:
    """Return the number of each model that is named, and under "" that of all: `8` sets all, `gpt-4o=2` sets one.

    As each value replaces those before it, one for all forgets the names before it.
    """
    found: dict[str, float] = {}
    for text in split_names(given):
        name, _, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            raise InputError(f"{option} is {text!r}, it must be a number or MODEL=NUMBER") from None
        if name and name not in models:
            raise InputError(
                f"{option} is {text!r}, but the outcomes have no model {name!r}. They have: {', '.join(models)}."
            )
        found = {**found, name: value} if name else {"": value}
    return found
