"""The one way in which a configuration can be wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from llm_protocol.errors import LLMClientError
from llm_protocol.failures import FailureKind

MAX_ENTRY = 300
"""Characters of an entry's name in a message."""


class ConfigError(LLMClientError):
    """The configuration cannot be used. ``str()`` is one line for a person and never holds a key.

    ``file`` and ``line`` (from 1) say where, as far as known; ``path`` is where in the tables.
    """

    kind = FailureKind.BAD_REQUEST

    def __init__(self, message: str, *path: str, file: str = "", line: int | None = None) -> None:
        place = f"{file}:{line}" if file and line else file
        entry = ".".join(part if part.isprintable() else repr(part) for part in path).replace(".[", "[")
        message = _one_line(message)
        super().__init__(": ".join(part for part in (place, entry[:MAX_ENTRY], message) if part))
        self.message = message
        self.path = path
        self.file = file
        self.line = line


def _one_line(text: str) -> str:
    """``text``, which may quote the configuration, with what would end the line or command a terminal written out."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


@contextmanager
def under(*path: str) -> Iterator[None]:
    """A `ConfigError` from the block gets ``path`` before its own."""
    try:
        yield
    except ConfigError as exc:
        raise ConfigError(exc.message, *path, *exc.path, file=exc.file, line=exc.line) from None
