"""Grade with any Python callable: `package.module:function`."""

from __future__ import annotations

import asyncio
import importlib
import inspect
from collections.abc import Callable
from typing import Any

from eccos_core.errors import GradingError, InputError, did_you_mean
from eccos_core.grading.protocol import Reference, Verdict, validate_score


class PythonGrader:
    """Call `function(answer, reference, question)`, which returns a number in [0, 1] or a bool. It may be async.

    `options` become keyword arguments. Any error of the function becomes a `GradingError`, and the answer is kept
    without a score. The function named in a questions file is run, so use only questions files that you trust.
    """

    def __init__(self, path: str, **options: Any) -> None:
        self.name = path
        self._function = _load_function(path)
        self._options = options

    def grade(self, answer: str, reference: Reference, question: str) -> float:
        """Return the function's score."""
        if inspect.iscoroutinefunction(self._function):
            return asyncio.run(self.agrade(answer, reference, question)).score
        return self._validated(self._call(answer, reference, question))

    async def agrade(self, answer: str, reference: Reference, question: str) -> Verdict:
        """Return the function's score. A function that is not async runs in a thread."""
        if not inspect.iscoroutinefunction(self._function):
            return Verdict(await asyncio.to_thread(self.grade, answer, reference, question))
        try:
            score = await self._function(answer, reference, question, **self._options)
        except Exception as error:
            raise self._grading_error(error) from error
        return Verdict(self._validated(score))

    def _call(self, answer: str, reference: Reference, question: str) -> Any:
        try:
            return self._function(answer, reference, question, **self._options)
        except Exception as error:
            raise self._grading_error(error) from error

    def _validated(self, score: Any) -> float:
        return validate_score(score, f"grader {self.name!r}")

    def _grading_error(self, error: Exception) -> GradingError:
        return GradingError(f"grader {self.name!r} raised {type(error).__name__}: {error}")


def _load_function(path: str) -> Callable[..., Any]:
    """Import the function at a path. Raises `InputError` that names the part of the path that is wrong."""
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise InputError(f"grader {path!r}: a Python grader is written 'package.module:function'")
    try:
        target: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = f"there is no module {error.name!r}"
        raise InputError(
            f"grader {path!r}: {missing}. Put its folder on PYTHONPATH, or install its package."
        ) from error
    except Exception as error:
        raise InputError(f"grader {path!r}: importing it raised {type(error).__name__}: {error}") from error
    for part in attribute.split("."):
        if not hasattr(target, part):
            raise InputError(f"grader {path!r}: {target!r} has no {part!r}{did_you_mean(part, dir(target))}")
        target = getattr(target, part)
    if not callable(target):
        raise InputError(f"grader {path!r}: it is {type(target).__name__}, it must be a function")
    return target  # type: ignore[no-any-return]
