"""A rich console for text that strangers wrote. Import it late: rich takes a while."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.segment import Segment

from eccos_core.io.safe_text import printable


class SafeConsole(Console):
    """Shows escape sequences and half characters as text. Square brackets are text too, never markup."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
        """Everything that is shown comes through here."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)
