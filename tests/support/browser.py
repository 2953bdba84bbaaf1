"""Debian's Chromium for tests."""

from __future__ import annotations

import os

import pytest

from tools.docs.chromium import find_chromium


def require_chromium() -> str:
    """Return the path of Chromium. Without it the test is skipped. On the CI machine it fails."""
    found = find_chromium()
    if found is None:
        reason = "Chromium is not installed (apt-get install chromium)"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found
