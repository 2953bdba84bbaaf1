"""Runs every example, each in a process of its own, offline, in a fresh folder, as a reader would try it.

The code blocks of README and docs run in `tests/docs/test_code_blocks.py`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOT_RUN = ("run_all.py",)
TIMEOUT_S = 900


def main() -> int:
    """Run them all. Return 1 when one fails, and print what it said."""
    failed = 0
    with tempfile.TemporaryDirectory(prefix="eccos-examples-") as folder:
        shutil.copytree(ROOT / "examples", Path(folder) / "examples")
        for script in sorted((Path(folder) / "examples").glob("*.py")):
            if script.name in NOT_RUN:
                continue
            started = time.perf_counter()
            done = subprocess.run(
                [sys.executable, str(script)],
                cwd=folder,
                env={**os.environ, "COLUMNS": "120"},
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
            )
            seconds = time.perf_counter() - started
            print(f"{'ok    ' if done.returncode == 0 else 'FAILED'} {seconds:6.1f} s  examples/{script.name}")
            if done.returncode != 0:
                failed += 1
                print(done.stdout[-4000:], done.stderr[-4000:], sep="\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
