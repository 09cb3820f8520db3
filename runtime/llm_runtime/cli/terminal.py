"""What the commands share about exit codes and about saying something."""

from __future__ import annotations

import os
import stat
import unicodedata
from contextlib import suppress

FAILED, UNUSABLE, INTERRUPTED, UNREAD = 1, 2, 130, 141
"""Exit codes: a request failed; nothing could start; Ctrl-C; nobody reads our stdout any more."""


def reserve_standard_files() -> None:
    """Put /dev/null in the place of a closed stdin, stdout or stderr, before a socket gets that number."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one


def print_error(problem: object, code: int) -> int:
    """One line on stderr; gives ``code`` back."""
    say(f"llm-runtime: {problem}")
    return code


def say(line: str) -> None:
    """Print to stderr, if anyone still reads it."""
    with suppress(OSError):
        write_all(f"{line}\n".encode(errors="replace"), 2)


def print_out(line: str) -> None:
    """Print to stdout for a program that may wait for it; it is no failure when none does."""
    with suppress(OSError):
        write_all(f"{line}\n".encode())


def write_all(data: bytes, file: int = 1) -> None:
    """Write to stdout or stderr itself, so that a reader who is slow or gone is noticed here. Blocks; raises OSError.

    Python's own files will not do: where it found one closed it has None, which means stdout to ``print``.
    """
    while data:
        data = data[os.write(file, data) :]


def is_piped(file: int) -> bool:
    """Whether something was piped or redirected into this file."""
    mode = os.fstat(file).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def harmless(text: str) -> str:
    """``text`` without what could steer a terminal: a model's answer is a stranger's."""
    return "".join(char for char in text if char in "\n\t" or unicodedata.category(char) != "Cc")


def leaf(error: BaseException) -> BaseException:
    """The first exception within a group of them: nurseries wrap what goes through them."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
