"""Check mathematical equality with Hugging Face's `math-verify`, in a separate process, because algebra can hang."""

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
from eccos_core.io.forks import ProcessGuard
from eccos_core.io.optional import require_package

_DELIMITED = re.compile(r"\$|\\\(|\\\[|\\boxed")
_START_TIMEOUT_S = 60.0  # sympy takes a second to import, much longer on a busy machine


class MathematicsGrader:
    r"""Score 1 when the answer is mathematically equal to a reference: \frac{1}{2} and 0.5, x^2+2x+1 and (x+1)^2.

    Answer and reference are LaTeX, plain numbers, or prose with LaTeX or `\boxed{}` in it. The last expression counts,
    as `math-verify` reads it. It compares decimals to six digits and reads 50% as 50. A text that ends in `\boxed{}`
    or `#### 7` is a good reference. Work that takes longer than `timeout_s` is stopped and raises `GradingError`.
    Several threads can use one grader. They take turns.
    """

    name = "math"

    def __init__(self, timeout_s: float = 10.0) -> None:
        if isinstance(timeout_s, bool) or not isinstance(timeout_s, (int, float)) or timeout_s <= 0:
            raise InputError(f"math grader: timeout_s is {timeout_s!r}, it must be a number of seconds > 0")
        self._timeout_s = float(timeout_s)
        self._turn = threading.Lock()
        self._worker: _Worker | None = None

    def grade(self, answer: str, reference: Reference, question: str) -> float:
        """Return 1.0 or 0.0. Raises `GradingError` after the timeout, or if the reference has no expression."""
        wanted = [_readings(text) for text in accepted_answers(reference, self.name)]
        reply = self._ask({"references": wanted, "answers": _readings(answer)})
        if "error" in reply:
            raise GradingError(f"the math grader: {reply['error']}")
        return float(reply["equal"])

    def close(self) -> None:
        """End the process. The next `grade` starts another one."""
        with self._turn:
            self._stop_worker()

    def __del__(self) -> None:
        self._stop_worker()

    def _stop_worker(self) -> None:
        worker, self._worker = getattr(self, "_worker", None), None
        if worker is not None and not worker.guard.is_forked:
            worker.kill()

    def _ask(self, work: dict[str, Any]) -> dict[str, Any]:
        with self._turn:
            if self._worker is None or self._worker.guard.is_forked:
                require_package("math_verify", "collect", "grading mathematics")
                self._worker = _Worker()
            try:
                return self._worker.ask(work, self._timeout_s)
            except TimeoutError:
                self._stop_worker()
                raise GradingError(f"the math grader found no verdict within {self._timeout_s:g} s") from None
            except OSError as error:
                self._stop_worker()
                raise GradingError(f"the math grader's process ended ({error}), probably out of memory") from error
            except BaseException:
                self._stop_worker()  # its unread reply must not become the reply to the next question
                raise


class _Worker:
    """One process that reads work and writes verdicts, one JSON object per line."""

    def __init__(self) -> None:
        self.guard = ProcessGuard("the math grader")
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
        threading.Thread(target=_forward_lines, args=(self._process.stdout, self._replies), daemon=True).start()
        self._receive(_START_TIMEOUT_S)

    def ask(self, work: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """Send work and return the reply. Raises `TimeoutError`, or `OSError` when the process has ended."""
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


def _forward_lines(lines: IO[str], replies: SimpleQueue[str]) -> None:
    with lines:
        for line in lines:
            replies.put(line)
    replies.put("")  # the process has ended


def _readings(text: str) -> list[str]:
    """Return ways to read a text as mathematics, the most likely first. `math-verify` needs LaTeX in delimiters."""
    text = text.replace("\\$", "")  # dollars, not the end of a formula
    readings = [text]
    announced = after_marker(text)
    if announced is not None and not _DELIMITED.search(announced):
        readings.insert(0, f"${_latex(announced.rstrip(' .'))}$")
    elif announced is None and not _DELIMITED.search(text) and "\n" not in text.strip():
        readings.insert(0, f"${_latex(text.strip().rstrip(' .'))}$")
    return readings


def _latex(text: str) -> str:
    """Convert common notation without LaTeX into LaTeX."""
    text = re.sub(r"(?<!\\)\bsqrt\s*\(([^()]*)\)", r"\\sqrt{\1}", text)
    return re.sub(r"(?<!\\)\b(pi|infty|sin|cos|tan|ln|log)\b", r"\\\1", text)
