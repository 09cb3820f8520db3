"""How ``ask`` and ``chat`` write a response."""

from __future__ import annotations

import sys
from typing import final

from llm_protocol.response import FinishReason, LLMResponse
from llm_runtime.cli.terminal import harmless, say, write_all

_CUT_OFF: dict[FinishReason | None, str] = {
    FinishReason.LENGTH: "at the limit of output tokens",
    FinishReason.CONTENT_FILTER: "by the vendor's content filter",
}


@final
class StdoutWriter:
    """Writes a response to stdout. If stdout is a terminal, control characters are removed."""

    def __init__(self) -> None:
        self.is_line_open = False
        self._clean = harmless if sys.stdout and sys.stdout.isatty() else str

    def encode(self, text: str) -> bytes:
        """Return the bytes to write for ``text``."""
        if text := self._clean(text):
            self.is_line_open = not text.endswith("\n")
        return text.encode(errors="replace")

    def write(self, text: str) -> None:
        """Write a piece. Blocks. Raises OSError if there is no reader any more."""
        write_all(self.encode(text))

    def end_line(self) -> None:
        """Write a line break if the last line has none. Raises as `write` does."""
        if self.is_line_open:
            self.write("\n")


def say_if_cut_off(response: LLMResponse) -> None:
    """Print to stderr that the response is incomplete, and why."""
    if cut := _CUT_OFF.get(response.finish_reason):
        say(f"llm-runtime: the response is incomplete: it was cut off {cut}")
