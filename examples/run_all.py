"""Runs every example, and every `eccos` command and Python block of the README, each in a process of its own.

Everything runs offline in a fresh folder that holds only `examples/configs`, as a reader would try it.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOT_RUN = ("run_all.py",)
BLOCK = re.compile(r"^```(?P<language>bash|python)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


def commands() -> list[tuple[str, list[str]]]:
    """(name, command line) of all there is to run; `eccos` means the one installed beside this Python."""
    eccos = str(Path(sys.executable).with_name("eccos"))
    found = [
        (f"examples/{script.name}", [sys.executable, str(script)])
        for script in sorted((ROOT / "examples").glob("*.py"))
        if script.name not in NOT_RUN
    ]
    for block in BLOCK.finditer((ROOT / "README.md").read_text(encoding="utf-8")):
        if block["language"] == "python":
            found.append((f"README: {block['body'].splitlines()[0]}", [sys.executable, "-c", block["body"]]))
            continue
        lines = block["body"].replace("\\\n", " ").splitlines()
        found += [
            (f"README: {line}", [eccos, *shlex.split(line, comments=True)[1:]])
            for line in lines
            if line.startswith("eccos ")
        ]
    return found


def main() -> int:
    """Runs them all; exits 1 when one fails, with what it printed."""
    failed = 0
    with tempfile.TemporaryDirectory(prefix="eccos-examples-") as folder:
        shutil.copytree(ROOT / "examples", Path(folder) / "examples")
        for name, command in commands():
            started = time.perf_counter()
            done = subprocess.run(
                command, cwd=folder, env={**os.environ, "COLUMNS": "120"}, capture_output=True, text=True, timeout=900
            )
            print(f"{'ok    ' if done.returncode == 0 else 'FAILED'} {time.perf_counter() - started:6.1f} s  {name}")
            if done.returncode != 0:
                failed += 1
                print(done.stdout[-4000:], done.stderr[-4000:], sep="\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
