"""Routing quality on recorded outcomes: `eccos evaluate` on the files of `../shared/data`.

Says so and does nothing where the data is absent. The first run embeds 19,000 questions with MiniLM, which takes
minutes. Embeddings are kept, and so are the answers of routers whose code and data did not change.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
STATIC = ("--routers", "prior,retrieval,hybrid,knn,routellm_mf", "--encoder", "static+surface")
RUNS = {
    "qa_math_mix9": ("--baselines",),
    "llmrouter_dcrouter": ("--baselines",),
    "routellm_mmlu": (*STATIC, "--train-rows", "1500"),
    "openhands34": STATIC,  # its outcomes carry their costs
}


def main() -> int:
    if not DATA.is_dir():
        print(f"needs {DATA}, which is not here")
        return 0
    eccos = str(Path(sys.executable).with_name("eccos"))
    for name, options in RUNS.items():
        prices = DATA / f"{name}.prices.json"
        charged = ("--prices", str(prices)) if prices.exists() else ()
        done = subprocess.run([eccos, "evaluate", "--data", str(DATA / f"{name}.jsonl.gz"), *charged, *options])
        if done.returncode != 0:
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
