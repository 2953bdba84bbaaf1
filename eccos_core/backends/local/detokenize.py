"""From tokens to text for one running request: incremental decoding and stop strings. No model, no threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"  # what a tokenizer decodes half of a multi-byte character to


class IncrementalDetokenizer:
    """The text of one answer while its tokens arrive.

    Decodes only the newest tokens together with a short context (tokenizers glue or split spaces by neighbour), holds
    back half characters, cuts at the first stop string, and never releases text that may be the start of one.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str]) -> None:
        self._decode = decode
        self._stops = tuple(stop for stop in stops if stop)
        self._longest_stop = max((len(stop) for stop in self._stops), default=0)
        self._ids: list[int] = []
        self._context_start = 0
        self._decoded_until = 0
        self._text = ""
        self._released = 0
        self.stopped = False

    @property
    def text(self) -> str:
        """Everything decoded so far, cut before a stop string."""
        return self._text

    def append(self, token: int) -> None:
        """Take one more token; sets `stopped` when a stop string is complete."""
        self._ids.append(token)
        self._extend(final=False)

    def finish(self) -> None:
        """No more tokens come: decode what was held back (a half character becomes a replacement character)."""
        if not self.stopped:
            self._extend(final=True)

    def release(self, final: bool = False) -> str:
        """The text that is new since the last call and can no longer turn out to be part of a stop string."""
        end = len(self._text) if final or self.stopped else len(self._text) - self._possible_stop_length()
        piece = self._text[self._released : end]
        self._released = max(self._released, end)
        return piece

    def _extend(self, final: bool) -> None:
        before = self._decode(self._ids[self._context_start : self._decoded_until])
        after = self._decode(self._ids[self._context_start :])
        if len(after) <= len(before) or (after.endswith(REPLACEMENT) and not final):
            return
        grown_from = len(self._text)
        self._text += after[len(before) :]
        self._context_start, self._decoded_until = self._decoded_until, len(self._ids)
        self._cut_at_stop(max(0, grown_from - self._longest_stop + 1))

    def _cut_at_stop(self, search_from: int) -> None:
        found = [place for stop in self._stops if (place := self._text.find(stop, search_from)) >= 0]
        if found:
            self._text = self._text[: min(found)]
            self.stopped = True

    def _possible_stop_length(self) -> int:
        """Length of the longest end of the text that begins some stop string."""
        for length in range(min(self._longest_stop - 1, len(self._text)), 0, -1):
            end = self._text[-length:]
            if any(stop.startswith(end) for stop in self._stops):
                return length
        return 0
