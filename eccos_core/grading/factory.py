"""Make the grader that a question names: `grader_for("number")`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from eccos_core.errors import InputError, UnknownModelError, did_you_mean
from eccos_core.grading.choice import ChoiceGrader
from eccos_core.grading.exact import ContainsGrader, ExactGrader
from eccos_core.grading.judge import JudgeGrader
from eccos_core.grading.mathematics import MathematicsGrader
from eccos_core.grading.number import NumberGrader
from eccos_core.grading.protocol import Grader
from eccos_core.grading.python import PythonGrader
from eccos_core.protocols import Backend

GraderSpec: TypeAlias = str | Mapping[str, Any]
"""A name, a dotted path `package.module:function`, or `{"name": ..., option: value}`."""


def _choice(options: Sequence[str] = ()) -> ChoiceGrader:
    if isinstance(options, str) or not all(isinstance(option, str) for option in options):
        raise InputError(f"multiple_choice grader: options is {options!r}, must be a list of texts")
    return ChoiceGrader(tuple(options))


def _contains(every: bool = False) -> ContainsGrader:
    if not isinstance(every, bool):
        raise InputError(f"contains grader: every is {every!r}, must be true or false")
    return ContainsGrader(every)


def _exact() -> ExactGrader:
    return ExactGrader()


def _number(tolerance: float = 0.0, relative_tolerance: float = 0.0, which: Any = "last") -> NumberGrader:
    return NumberGrader(tolerance, relative_tolerance, which)


def _mathematics(timeout_s: float = 10.0) -> MathematicsGrader:
    return MathematicsGrader(timeout_s)


_FACTORIES: Mapping[str, Callable[..., Grader]] = {
    "exact": _exact,
    "number": _number,
    "multiple_choice": _choice,
    "contains": _contains,
    "math": _mathematics,
}
_JUDGE_OPTIONS = ("model", "rubric", "parameters")

GRADER_NAMES: tuple[str, ...] = (*_FACTORIES, "judge", "reward")

RewardLoader: TypeAlias = Callable[[Path | None], Grader]
"""Makes the grader of a folder that `eccos fit-reward` wrote. None: of the folder that is meant without one."""


def grader_for(
    spec: GraderSpec,
    backend: Backend | None = None,
    models: Sequence[str] | None = None,
    reward: RewardLoader | None = None,
) -> Grader:
    """Make the grader that a question names.

    `backend` calls the judge, and `models` are its models. `reward` loads a reward model. Raises `InputError` for an
    unknown name or option (with the nearest spelling), for a Python path that does not exist, for a judge without a
    backend, and for a reward model without `reward`.
    """
    name, options = _name_and_options(spec)
    if ":" in name:
        return PythonGrader(name, **options)
    if name == "judge":
        return _judge(options, backend, models)
    if name == "reward":
        return _reward(options, reward)
    if name not in _FACTORIES:
        raise InputError(
            f"unknown grader {name!r}{did_you_mean(name, GRADER_NAMES) or '.'} Known: {', '.join(GRADER_NAMES)}, "
            "and 'package.module:function'"
        )
    make = _FACTORIES[name]
    _check_options(name, options, tuple(inspect.signature(make).parameters))
    return make(**options)


def _name_and_options(spec: GraderSpec) -> tuple[str, dict[str, Any]]:
    if isinstance(spec, str) and spec.strip():
        return spec.strip(), {}
    if isinstance(spec, Mapping) and isinstance(spec.get("name"), str) and all(isinstance(key, str) for key in spec):
        return spec["name"].strip(), {key: value for key, value in spec.items() if key != "name"}
    raise InputError(
        f"grader is {spec!r}, must be a name ({', '.join(GRADER_NAMES)}), 'package.module:function', "
        'or {"name": ..., option: value}'
    )


def _judge(options: Mapping[str, Any], backend: Backend | None, models: Sequence[str] | None) -> JudgeGrader:
    _check_options("judge", options, _JUDGE_OPTIONS)
    model = options.get("model")
    if not isinstance(model, str):
        raise InputError('judge grader: it needs a model of the pool: {"name": "judge", "model": "..."}')
    if models is not None and model not in models:
        raise UnknownModelError(model, models)
    if backend is None:
        raise InputError("judge grader: there is no backend to call it with. Pass one: grader_for(spec, backend=...)")
    parameters = options.get("parameters", {})
    if not isinstance(parameters, Mapping):
        raise InputError(f"judge grader: parameters is {parameters!r}, must be a mapping of call parameters")
    rubric = {"rubric": options["rubric"]} if "rubric" in options else {}
    return JudgeGrader(model, backend, parameters=parameters, **rubric)


def _reward(options: Mapping[str, Any], load: RewardLoader | None) -> Grader:
    _check_options("reward", options, ("folder",))
    folder = options.get("folder")
    if folder is not None and not (isinstance(folder, str) and folder.strip()):
        raise InputError(f"reward grader: folder is {folder!r}, must be the path that `eccos fit-reward` wrote")
    if load is None:
        raise InputError(
            "reward grader: a reward model reads with the encoder of a configuration. Use `eccos collect`, or pass "
            "grader_for(spec, reward=...) with eccos_core.assembly.reward_grader.build_reward_grader"
        )
    return load(None if folder is None else Path(folder))


def _check_options(name: str, options: Mapping[str, Any], known: Sequence[str]) -> None:
    for option in options:
        if option not in known:
            meant = did_you_mean(option, known) or "."
            raise InputError(f"{name} grader: unknown option {option!r}{meant} It knows: {', '.join(known) or 'none'}")
