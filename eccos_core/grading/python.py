"""Any Python callable as a grader: `package.module:function`."""

from __future__ import annotations

import asyncio
import importlib
import inspect
from collections.abc import Callable
from typing import Any

from eccos_core.errors import GradingError, InputError, did_you_mean
from eccos_core.grading.protocol import Reference, Verdict, checked_score


class PythonGrader:
    """Calls `function(answer, reference, question)`, which gives a number in [0, 1] or a truth value; it may be async.

    `options` are passed as keyword arguments. Whatever the function raises becomes a `GradingError`: the answer is kept
    without a score. A function named in a questions file is run, so a questions file is to be trusted like a program.
    """

    def __init__(self, path: str, **options: Any) -> None:
        self.name = path
        self._function = _function_at(path)
        self._options = options

    def grade(self, answer: str, reference: Reference, question: str) -> float:
        """The function's score."""
        if inspect.iscoroutinefunction(self._function):
            return asyncio.run(self.agrade(answer, reference, question)).score
        return self._checked(self._call(answer, reference, question))

    async def agrade(self, answer: str, reference: Reference, question: str) -> Verdict:
        """The function's score; a function that is not async runs in a thread."""
        if not inspect.iscoroutinefunction(self._function):
            return Verdict(await asyncio.to_thread(self.grade, answer, reference, question))
        try:
            score = await self._function(answer, reference, question, **self._options)
        except Exception as error:
            raise self._failure(error) from error
        return Verdict(self._checked(score))

    def _call(self, answer: str, reference: Reference, question: str) -> Any:
        try:
            return self._function(answer, reference, question, **self._options)
        except Exception as error:
            raise self._failure(error) from error

    def _checked(self, score: Any) -> float:
        return checked_score(score, f"grader {self.name!r}")

    def _failure(self, error: Exception) -> GradingError:
        return GradingError(f"grader {self.name!r} raised {type(error).__name__}: {error}")


def _function_at(path: str) -> Callable[..., Any]:
    """Raises `InputError` saying which part of the path is wrong."""
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise InputError(f"grader {path!r}: a Python grader is written 'package.module:function'")
    try:
        target: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = f"there is no module {error.name!r}"
        raise InputError(
            f"grader {path!r}: {missing}; is its folder on PYTHONPATH, or its package installed?"
        ) from error
    except Exception as error:
        raise InputError(f"grader {path!r}: importing it raised {type(error).__name__}: {error}") from error
    for part in attribute.split("."):
        if not hasattr(target, part):
            raise InputError(f"grader {path!r}: {target!r} has no {part!r}{did_you_mean(part, dir(target))}")
        target = getattr(target, part)
    if not callable(target):
        raise InputError(f"grader {path!r}: it is {type(target).__name__}, must be a function")
    return target  # type: ignore[no-any-return]
