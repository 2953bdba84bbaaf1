"""Read `--engine gpu=a100,kv_tokens=100000`: one simulated serving engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from eccos_core.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from eccos_core.roofline import PassCost
    from eccos_core.simulation.serving import EngineSettings

_Value = TypeVar("_Value", int, float)


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What `--engine` says. `learn` is the share of the trace that teaches the forecast and is not simulated.

    None: `kv_tokens` are those that the GPU's memory has room for, `chunk` is whole prompts. `scheduler` is each one on
    a trace, and `reserve` in a pool, where `serves` names the model.
    """

    serves: str | None = None
    gpu: str | None = None
    model: str = "llama-2-7b"
    costs: Path | None = None
    kv_tokens: int | None = None
    replicas: int = 1
    shards: int = 1
    scheduler: str | None = None
    chunk: int | None = 512
    batch: int = 256
    overhead: float = 0.0
    learn: float | None = None

    def cost(self) -> tuple[PassCost, int]:
        """Return what a pass takes, and the tokens that fit into the cache. Raises `InputError`."""
        from eccos_core.roofline import RooflineCost, architecture_named, gpu_named
        from eccos_core.simulation.serving.calibration import read_calibration

        if (self.gpu is None) == (self.costs is None):
            raise InputError("--engine needs either gpu=NAME or costs=FILE (of `eccos calibrate`), and not both")
        if self.gpu is not None:
            roofline = RooflineCost(gpu_named(self.gpu), architecture_named(self.model), self.shards, self.overhead)
            return roofline, roofline.kv_tokens() if self.kv_tokens is None else self.kv_tokens
        assert self.costs is not None
        if self.kv_tokens is None:
            raise InputError("--engine has costs=FILE without kv_tokens=N; the server's log says how many it has")
        return read_calibration(self.costs).cost, self.kv_tokens

    def settings(self) -> EngineSettings:
        """Return the engine with its one scheduler. Raises `InputError`."""
        from eccos_core.simulation.serving import EngineSettings, scheduler_named

        cost, kv_tokens = self.cost()
        scheduler = scheduler_named(self.scheduler or "reserve")
        return EngineSettings(cost, scheduler, kv_tokens, self.replicas, self.chunk, self.batch)

    @property
    def name(self) -> str:
        """What is simulated, in words."""
        return f"{self.model} on {self.gpu}" if self.gpu else f"a server as in {self.costs}"


def parse_engine(text: str) -> EngineSpec:
    """Read `name=value` pairs, separated by commas. Raises `InputError` that names the pair."""
    read: dict[str, Callable[[str, str], Any]] = {
        "serves": lambda _, value: value,
        "gpu": lambda _, value: value,
        "model": lambda _, value: value,
        "costs": lambda _, value: Path(value),
        "scheduler": lambda _, value: None if value == "all" else value,
        "chunk": lambda name, value: None if value == "none" else _number(name, value, int, 1),
        "overhead": lambda name, value: _number(name, value, float, 0),
        "learn": lambda name, value: _number(name, value, float, 0),
        **dict.fromkeys(("kv_tokens", "replicas", "shards", "batch"), lambda name, value: _number(name, value, int, 1)),
    }
    found: dict[str, Any] = {}
    for pair in text.split(","):
        name, equals, value = (part.strip() for part in pair.partition("="))
        if name not in read:
            raise InputError(
                f"--engine has {pair!r}, must be {', '.join(f'{one}=' for one in read)}{did_you_mean(name, read)}"
            )
        if not equals or not value or name in found:
            raise InputError(f"--engine has {pair!r}, must give each name one value, as in gpu=a100,kv_tokens=100000")
        found[name] = read[name](name, value)
    if not 0 < found.get("learn", 0.5) < 1:
        raise InputError(f"--engine has learn={found['learn']}, must be a share between 0 and 1, as in learn=0.3")
    return EngineSpec(**found)


def _number(name: str, text: str, kind: type[_Value], least: int) -> _Value:
    try:
        value = kind(text)
    except ValueError:
        value = kind(-1)
    if not least <= value < float("inf"):
        raise InputError(f"--engine has {name}={text}, must be a {'whole ' * (kind is int)}number >= {least}")
    return value
