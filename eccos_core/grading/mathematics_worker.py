"""The process behind `MathematicsGrader`: reads {"references": [[...]], "answers": [...]}, writes {"equal": bool}."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from eccos_core.io.optional import needs_extra


def main() -> None:
    """Read one JSON object per line and write one per line. The first line out says that imports are done."""
    with needs_extra("collect", "grading mathematics"):
        from math_verify import parse, verify

    logging.disable(logging.CRITICAL)  # math-verify warns that no timeout is set, but the parent process has one

    def read(readings: list[str]) -> list[list[Any]]:
        parsed = (parse(text, parsing_timeout=None) for text in readings)
        return [expressions for expressions in parsed if expressions]

    def judge(work: dict[str, Any]) -> dict[str, Any]:
        references = [read(readings) for readings in work["references"]]
        for readings, expressions in zip(work["references"], references, strict=True):
            if not expressions:
                return {"error": f"no mathematical expression can be read from the reference {readings[-1][:60]!r}"}
        answers = read(work["answers"])
        pairs = ((gold, answer) for expressions in references for gold in expressions[:1] for answer in answers)
        return {"equal": any(verify(gold, answer, timeout_seconds=None) for gold, answer in pairs)}

    out = sys.stdout
    sys.stdout = sys.stderr  # nothing but replies goes out
    _write(out, {"ready": True})
    for line in sys.stdin:
        try:
            reply = judge(json.loads(line))
        except (Exception, RecursionError) as error:  # noqa: BLE001 - the parent makes a GradingError of whatever it was
            reply = {"error": f"{type(error).__name__}: {error}"}
        _write(out, reply)


def _write(out: Any, reply: dict[str, Any]) -> None:
    out.write(json.dumps(reply) + "\n")
    out.flush()


if __name__ == "__main__":
    main()
