"""Make the token table that the static encoder ships: `python -m tools.encoders.make_static_table`.

The script distils MiniLM (it needs `eccos[local]`), keeps the widest axes, and stores each number in one byte.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from eccos_core.encoders.model_folder import BUNDLED
from eccos_core.encoders.static_table import AXES, SHIPPED_TABLE, CompactTable, compact_table, write_table
from eccos_core.encoders.static_training import distilled_vectors


def make_table(cache_dir: Path | None = None) -> CompactTable:
    """Distil MiniLM and return its compact table."""
    tokens = distilled_vectors(BUNDLED, cache_dir)
    return compact_table(tokens.source, tokens.codes[:, :AXES], tokens.tokenizer.to_str())


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the table and say how large it is."""
    parser = argparse.ArgumentParser(prog="python -m tools.encoders.make_static_table", description=__doc__)
    parser.add_argument("--out", type=Path, default=SHIPPED_TABLE, help="folder to write to")
    options = parser.parse_args(arguments)
    write_table(make_table(), options.out)
    size = sum(file.stat().st_size for file in options.out.iterdir())
    sys.stderr.write(f"{options.out}: {size / 1e6:.1f} MB\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
