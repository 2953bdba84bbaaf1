"""Refuse files over 1 MB that are about to be committed. `pre-commit` gives their names.

The weights of the pocket models and the fitted artifacts are meant to be here: they ship with the wheel.
"""

from __future__ import annotations

import sys
from pathlib import Path

MOST_BYTES = 1_000_000
MEANT = (".safetensors", ".npz", ".jsonl.gz")


def main(names: list[str]) -> int:
    """Print each file that is too large. Exits 1 when there is one."""
    large = [name for name in names if not name.endswith(MEANT) and Path(name).stat().st_size > MOST_BYTES]
    for name in large:
        print(f"{name} has over {MOST_BYTES:,} bytes. Keep it out of the repository.", file=sys.stderr)
    return 1 if large else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
