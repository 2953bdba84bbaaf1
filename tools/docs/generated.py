"""What the scripts of this folder share: write a generated page, or check that it is up to date."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def write_or_check(page: Path, text: str, script: str) -> int:
    """Write `text` to a page and return 0. With `--check`, write nothing and return 1 when the page says otherwise."""
    if "--check" not in sys.argv[1:]:
        page.write_text(text, encoding="utf-8")
        return 0
    if page.is_file() and page.read_text(encoding="utf-8") == text:
        return 0
    sys.stderr.write(f"{page.relative_to(ROOT)} is not up to date: run `python -m {script}`\n")
    return 1
