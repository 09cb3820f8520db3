"""The error for a mistake in the configuration, and the line of the mistake."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import final

from llm_protocol.errors import LLMClientError
from llm_protocol.failures import FailureKind

MOST_MISTAKES = 20
"""The most mistakes that one error reports."""

MAX_TRIES = 200
"""Limits the search for one line: at most a quarter of this number of candidate lines are examined, each together with
at most this number of lines after it. If that is not enough, the error has no line.
"""

MAX_ENTRY = 300
"""The most characters of an entry's name in a message."""


class ConfigError(LLMClientError):
    """The configuration cannot be used. ``str()`` is one line and never contains a key.

    ``file`` and ``line`` (from 1) say where the mistake is, if known; ``path`` is the path of the entry in the tables.
    ``more``: the other mistakes that were found with it.
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
        """All mistakes, this one first."""
        return (self, *self.more)

    def below(self, *path: str) -> ConfigError:
        """Return the same error with ``path`` before its own path and before those of ``more``."""
        more = [each.below(*path) for each in self.more]
        return ConfigError(self.message, *path, *self.path, file=self.file, line=self.line, more=more)


def _one_line(text: str) -> str:
    """Return ``text`` with control characters escaped. It may quote the configuration, and must stay one harmless
    line.
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


@contextmanager
def under(*path: str) -> Iterator[None]:
    """Put ``path`` before the path of a `ConfigError` from the block."""
    try:
        yield
    except ConfigError as exc:
        raise exc.below(*path) from None


@final
class Mistakes:
    """Collects the mistakes in several places, so that one error reports all of them."""

    def __init__(self) -> None:
        self._found: list[ConfigError] = []

    @contextmanager
    def under(self, *path: str) -> Iterator[None]:
        """Collect a `ConfigError` from the block, and continue after the block. ``path`` is put before the error's
        own path.
        """
        try:
            yield
        except ConfigError as exc:
            self._found.append(exc.below(*path))

    def raise_any(self) -> None:
        """Raise the first collected `ConfigError`, if there is one, with the others as its ``more``."""
        if self._found:
            raise together(self._found)


def run_checks(*checks: Callable[[], None]) -> None:
    """Run all checks, and raise the `ConfigError`s of all of them together."""
    mistakes = Mistakes()
    for check in checks:
        with mistakes.under():
            check()
    mistakes.raise_any()


def together(mistakes: Sequence[ConfigError]) -> ConfigError:
    """Return several mistakes as one exception."""
    first, *others = [alone for each in mistakes for alone in each.all][:MOST_MISTAKES]
    more = [ConfigError(each.message, *each.path, file=each.file, line=each.line) for each in others]
    return ConfigError(first.message, *first.path, file=first.file, line=first.line, more=more)


def line_of(source: str, path: Sequence[str]) -> int | None:
    """Return the line, from 1, in which the entry at ``path`` begins; ``None`` if it was not found.

    `tomllib` reports no positions. So the text is parsed several times, each time up to a later line: an entry begins
    in the first line with which the parsed text contains the entry. This works for all ways to write keys and tables.
    It is slow, but only done for errors.
    """
    lines = source.split("\n")
    candidates = [number for number, text in enumerate(lines) if _word(path) in text] if path else []
    for number in candidates[: MAX_TRIES // 4]:
        before = _parse(lines[:number])
        if before is None or _has(before, path):
            continue
        for end in range(number + 1, min(len(lines), number + MAX_TRIES) + 1):
            table = _parse(lines[:end])
            if table is not None:
                if _has(table, path):
                    return number + 1
                break
    return None


def _word(path: Sequence[str]) -> str:
    """Return the name to search for in a line: the last one of the path; for a member of a list, the name of the
    list.
    """
    return next((part for part in reversed(path) if not part.startswith("[")), "")


def _parse(lines: Sequence[str]) -> object | None:
    import tomllib

    try:
        return tomllib.loads("\n".join(lines))
    except (ValueError, RecursionError):
        return None


def _has(table: object, path: Sequence[str]) -> bool:
    for part in path:
        if isinstance(table, list) and part[1:-1].isdecimal():
            if int(part[1:-1]) >= len(table):
                return False
            table = table[int(part[1:-1])]
            continue
        if not isinstance(table, dict) or part not in table:
            return False
        table = table[part]
    return True
