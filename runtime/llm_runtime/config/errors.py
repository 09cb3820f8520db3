"""The one way in which a configuration can be wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import final

from llm_protocol.errors import LLMClientError
from llm_protocol.failures import FailureKind

MOST_MISTAKES = 20
"""Mistakes that are told in one run."""

MAX_ENTRY = 300
"""Characters of an entry's name in a message."""


class ConfigError(LLMClientError):
    """The configuration cannot be used. ``str()`` is one line for a person and never holds a key.

    ``file`` and ``line`` (from 1) say where, as far as known; ``path`` is where in the tables. ``more`` are the other
    mistakes that were found in the same run.
    """

    kind = FailureKind.BAD_REQUEST

    def __init__(
        self, message: str, *path: str, file: str = "", line: int | None = None, more: Iterable[ConfigError] = ()
    ) -> None:
        place = f"{file}:{line}" if file and line else file
        entry = ".".join(part if part.isprintable() else repr(part) for part in path).replace(".[", "[")
        message = _one_line(message)
        super().__init__(": ".join(part for part in (place, entry[:MAX_ENTRY], message) if part))
        self.message = message
        self.path = path
        self.file = file
        self.line = line
        self.more = tuple(more)

    @property
    def all(self) -> tuple[ConfigError, ...]:
        """All mistakes, itself the first."""
        return (self, *self.more)

    def below(self, *path: str) -> ConfigError:
        """The same, its path and the others' within ``path``."""
        more = [each.below(*path) for each in self.more]
        return ConfigError(self.message, *path, *self.path, file=self.file, line=self.line, more=more)


def _one_line(text: str) -> str:
    """``text``, which may quote the configuration, with what would end the line or command a terminal written out."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


@contextmanager
def under(*path: str) -> Iterator[None]:
    """A `ConfigError` from the block gets ``path`` before its own."""
    try:
        yield
    except ConfigError as exc:
        raise exc.below(*path) from None


@final
class Mistakes:
    """Collects what is wrong in several places, so that all of it is told in one run."""

    def __init__(self) -> None:
        self._found: list[ConfigError] = []

    @contextmanager
    def under(self, *path: str) -> Iterator[None]:
        """A `ConfigError` from the block is kept, with ``path`` before its own, and the program goes on behind it."""
        try:
            yield
        except ConfigError as exc:
            self._found.append(exc.below(*path))

    def raise_any(self) -> None:
        """Raise the first `ConfigError`, if there was one, with the others as its ``more``."""
        if self._found:
            raise together(self._found)


def together(mistakes: Sequence[ConfigError]) -> ConfigError:
    """Several mistakes as one exception."""
    first, *others = [alone for each in mistakes for alone in each.all][:MOST_MISTAKES]
    more = [ConfigError(each.message, *each.path, file=each.file, line=each.line) for each in others]
    return ConfigError(first.message, *first.path, file=first.file, line=first.line, more=more)
