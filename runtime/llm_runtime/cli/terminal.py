"""Exit codes and output that the commands share."""

from __future__ import annotations

import os
import stat
import unicodedata
from contextlib import suppress

FAILED, UNUSABLE, INTERRUPTED, UNREAD = 1, 2, 130, 141
"""Exit codes: a request failed; the command could not start; Ctrl-C; stdout has no reader any more."""

STDIN_BYTES = 8 * 1024 * 1024
"""The most bytes that are read from stdin for one request."""


def reserve_standard_files() -> None:
    """Open /dev/null in place of a closed stdin, stdout or stderr, before a socket gets that descriptor."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest free descriptor, which is this one


def print_error(problem: object, code: int) -> int:
    """Print one line to stderr; returns ``code``."""
    say(f"llm-runtime: {problem}")
    return code


def say(line: str) -> None:
    """Print to stderr. A stderr without a reader is not an error."""
    with suppress(OSError):
        write_all(f"{_shown(line, 2)}\n".encode(errors="replace"), 2)


class OutputError(Exception):
    """The output of a command could not be written to stdout. ``cause`` is the reason."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(f"cannot write the output: {cause.strerror}")
        self.cause = cause


def print_out(line: str) -> None:
    """Print a line of the output of a command to stdout. Raises `OutputError`."""
    try:
        write_all(f"{_shown(line, 1)}\n".encode(errors="replace"))
    except OSError as exc:
        raise OutputError(exc) from None


def print_ready(url: str) -> None:
    """Print to stdout where a server listens, for the program that started it. It does not matter if nothing reads
    it.
    """
    with suppress(OutputError):
        print_out(f"ready {url}")


def _shown(line: str, file: int) -> str:
    """Return ``line`` as it is written to ``file``: a line may quote a model or a vendor, which must not control the
    terminal.
    """
    return harmless(line) if os.isatty(file) else line


def write_all(data: bytes, file: int = 1) -> None:
    """Write to the descriptor of stdout or stderr, so that this process notices a slow or missing reader. Blocks;
    raises OSError.

    Python's file objects are not suitable: if a descriptor was closed at the start, Python's object for it is ``None``,
    and `print` to ``None`` writes to stdout.
    """
    while data:
        data = data[os.write(file, data) :]


def is_piped(file: int) -> bool:
    """Whether something was piped or redirected into this file."""
    mode = os.fstat(file).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def harmless(text: str) -> str:
    """Return ``text`` without terminal control characters, because a model's output is untrusted."""
    return "".join(char for char in text if char in "\n\t" or unicodedata.category(char) != "Cc")


def leaf(error: BaseException) -> BaseException:
    """Return the first exception in a group: nurseries wrap exceptions that pass through them."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
