"""What the commands share about exit codes and about saying something."""

from __future__ import annotations

import os
import stat
import sys
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


def complain(problem: object, code: int) -> int:
    """One line on stderr; gives ``code`` back."""
    say(f"llm-runtime: {problem}")
    return code


def say(line: str) -> None:
    """Print to stderr, if anyone still reads it."""
    with suppress(OSError, ValueError):  # nobody may read it any more
        print(line, file=sys.stderr, flush=True)


def announce(line: str) -> None:
    """Print to stdout for a program that may wait for it; it is no failure when none does."""
    with suppress(OSError):
        write_all(f"{line}\n".encode())


def write_all(data: bytes) -> None:
    """Write to stdout, unbuffered, so that a reader who is slow or gone is noticed here. Blocks; raises OSError."""
    while data:
        data = data[os.write(1, data) :]


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
