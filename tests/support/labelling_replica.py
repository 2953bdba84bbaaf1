"""A replica in a process of its own, for tests: it decides, takes labels and forecasts as it is told on stdin.

Run it with a configuration file. It reads one JSON list a line, and answers each with one JSON value.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from warm_process import WarmProcess


class LabellingReplica:
    """The test's end of the process."""

    def __init__(self, config: Path) -> None:
        self.process = WarmProcess([__file__, str(config)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.ask("learned") >= 0

    def ask(self, *command: object) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the replica has ended"
        return json.loads(line)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(30) == 0


def run(config: str) -> None:
    from eccos_core.router import Router

    with Router.from_yaml(config) as router:
        for line in sys.stdin:
            command, *values = json.loads(line)
            answer: Any = None
            match command:
                case "decide":
                    answer = router.decide(values[0]).id
                case "record":
                    router.record(*values)
                case "forecast":
                    answer = router.explain(values[0])[0].forecast.quality[0].tolist()
                case "learned":
                    answer = len(router.parts.learner) if router.parts.learner is not None else 0
                case "labelled":
                    answer = router.decision_store.labelled
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    run(sys.argv[1])
