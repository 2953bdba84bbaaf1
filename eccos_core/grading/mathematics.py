"""Mathematical equivalence by Hugging Face's `math-verify`, in a process of its own: algebra can run for ever."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from queue import Empty, SimpleQueue
from typing import IO, Any

from eccos_core.errors import GradingError, InputError
from eccos_core.grading.protocol import Reference, accepted_answers
from eccos_core.grading.text import after_marker
from eccos_core.io.optional import require_package

_DELIMITED = re.compile(r"\$|\\\(|\\\[|\\boxed")
_STARTING_S = 60.0  # sympy takes a second to import, much longer on a busy machine


class MathematicsGrader:
    r"""1 when the answer is mathematically equal to a reference: \frac{1}{2} and 0.5, x^2+2x+1 and (x+1)^2.

    Answer and reference are LaTeX, plain numbers, or prose with LaTeX or `\boxed{}` in it; the last expression counts,
    as `math-verify` reads it (decimals are compared to six digits; 50% is 50). A solution that ends in `\boxed{}` or
    `#### 7` is a good reference. Work that takes longer than `timeout_s` is stopped and is a `GradingError`.
    Safe to use from several threads, which take turns.
    """

    name = "math"

    def __init__(self, timeout_s: float = 10.0) -> None:
        if isinstance(timeout_s, bool) or not isinstance(timeout_s, (int, float)) or timeout_s <= 0:
            raise InputError(f"math grader: timeout_s is {timeout_s!r}, must be a number of seconds > 0")
        self._timeout_s = float(timeout_s)
        self._turn = threading.Lock()
        self._worker: _Worker | None = None

    def grade(self, answer: str, reference: Reference, question: str) -> float:
        """1.0 or 0.0. Raises `GradingError` when no expression can be read from the reference, or time is up."""
        wanted = [_readings(text) for text in accepted_answers(reference, self.name)]
        reply = self._ask({"references": wanted, "answers": _readings(answer)})
        if "error" in reply:
            raise GradingError(f"the math grader: {reply['error']}")
        return float(reply["equal"])

    def close(self) -> None:
        """Ends the process; the next `grade` starts another."""
        with self._turn:
            self._drop()

    def __del__(self) -> None:
        self._drop()

    def _drop(self) -> None:
        worker, self._worker = getattr(self, "_worker", None), None
        if worker is not None:
            worker.kill()

    def _ask(self, work: dict[str, Any]) -> dict[str, Any]:
        with self._turn:
            if self._worker is None:
                require_package("math_verify", "collect", "grading mathematics")
                self._worker = _Worker()
            try:
                return self._worker.ask(work, self._timeout_s)
            except TimeoutError:
                self._drop()
                raise GradingError(f"the math grader found no verdict within {self._timeout_s:g} s") from None
            except OSError as error:
                self._drop()
                raise GradingError(f"the math grader's process ended ({error}), probably out of memory") from error
            except BaseException:
                self._drop()  # a reply that nobody read must not become the reply to the next question
                raise


class _Worker:
    """One process that reads work and writes verdicts, a JSON object a line."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "eccos_core.grading.mathematics_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin = self._process.stdin
        self._replies: SimpleQueue[str] = SimpleQueue()
        threading.Thread(target=_pass_on, args=(self._process.stdout, self._replies), daemon=True).start()
        self._receive(_STARTING_S)

    def ask(self, work: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """Raises `TimeoutError`, and `OSError` when the process is gone."""
        self._stdin.write(json.dumps(work) + "\n")
        self._stdin.flush()
        return self._receive(timeout_s)

    def _receive(self, timeout_s: float) -> dict[str, Any]:
        try:
            line = self._replies.get(timeout=timeout_s)
        except Empty:
            raise TimeoutError from None
        if not line:
            raise ConnectionResetError(f"exit code {self._process.wait()}")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._stdin.close()


def _pass_on(lines: IO[str], replies: SimpleQueue[str]) -> None:
    with lines:
        for line in lines:
            replies.put(line)
    replies.put("")  # the process is gone


def _readings(text: str) -> list[str]:
    """The ways to read a text as mathematics, surest first. `math-verify` wants LaTeX in delimiters."""
    text = text.replace("\\$", "")  # dollars, not the end of a formula
    readings = [text]
    announced = after_marker(text)
    if announced is not None and not _DELIMITED.search(announced):
        readings.insert(0, f"${_latex(announced.rstrip(' .'))}$")
    elif announced is None and not _DELIMITED.search(text) and "\n" not in text.strip():
        readings.insert(0, f"${_latex(text.strip().rstrip(' .'))}$")
    return readings


def _latex(text: str) -> str:
    """What people write without LaTeX, in LaTeX."""
    text = re.sub(r"(?<!\\)\bsqrt\s*\(([^()]*)\)", r"\\sqrt{\1}", text)
    return re.sub(r"(?<!\\)\b(pi|infty|sin|cos|tan|ln|log)\b", r"\\\1", text)
