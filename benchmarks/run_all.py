"""Runs every benchmark of this folder, one after the other, and says what each measured.

`make bench` runs all; `python benchmarks/run_all.py optimizer serving` runs some. Each script prints a table and exits
0; one that needs `../shared/data` says so and does nothing where it is absent. Timings are medians, ratios of one run.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent


NOT_HERE = ("run_all.py", "install_sizes.py", "pair_decoding.py", "pair_gate.py")  # downloads, and parts of `pair`


def main() -> int:
    """Exits 1 when a benchmark fails."""
    wanted = sys.argv[1:]
    scripts = [script for script in sorted(HERE.glob("*.py")) if script.name not in NOT_HERE]
    unknown = [name for name in wanted if name not in {script.stem for script in scripts}]
    if unknown:
        print(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(script.stem for script in scripts)}")
        return 1
    failed = []
    for script in scripts:
        if wanted and script.stem not in wanted:
            continue
        print(f"\n## {script.stem}\n", flush=True)
        started = time.perf_counter()
        done = subprocess.run([sys.executable, str(script)], cwd=HERE.parent)
        print(f"({time.perf_counter() - started:.0f} s)", flush=True)
        if done.returncode != 0:
            failed.append(script.stem)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
