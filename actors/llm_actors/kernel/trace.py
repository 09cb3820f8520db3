"""The place where an exception came from, without any data: its type, file and line, never its text."""

from __future__ import annotations

from pathlib import PurePath
from traceback import walk_tb


def exception_site(exc: BaseException) -> str:
    """Return `ValueError at limiter.py:120 in admit`, of the innermost frame and the first exception of a group."""
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    frames = list(walk_tb(exc.__traceback__))
    if not frames:
        return type(exc).__name__
    frame, line = frames[-1]
    code = frame.f_code
    return f"{type(exc).__name__} at {PurePath(code.co_filename).name}:{line} in {code.co_name}"
