"""Routing quality on recorded outcomes: `eccos evaluate --baselines` on both files of `../shared/data`.

Says so and does nothing where the data is absent. The first run embeds 19,000 questions with MiniLM, which takes
minutes;
embeddings are kept, and so are answers of routers whose code and data did not change.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


def main() -> int:
    if not DATA.is_dir():
        print(f"needs {DATA}, which is not here")
        return 0
    eccos = str(Path(sys.executable).with_name("eccos"))
    for name in ("qa_math_mix9", "llmrouter_dcrouter"):
        files = ["--data", str(DATA / f"{name}.jsonl.gz"), "--prices", str(DATA / f"{name}.prices.json")]
        done = subprocess.run([eccos, "evaluate", *files, "--baselines"])
        if done.returncode != 0:
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
