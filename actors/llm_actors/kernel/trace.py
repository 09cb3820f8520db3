"""The place where an exception was raised: its type, file and line. Its text is left out, because it may contain user
data.
"""

from __future__ import annotations

from pathlib import PurePath
from traceback import walk_tb


def exception_site(exc: BaseException) -> str:
    """Return the innermost frame, as `ValueError at limiter.py:120 in admit`. For a group, return the frame of its
    first exception.
    """
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    frames = list(walk_tb(exc.__traceback__))
    if not frames:
        return type(exc).__name__
    frame, line = frames[-1]
    code = frame.f_code
    return f"{type(exc).__name__} at {PurePath(code.co_filename).name}:{line} in {code.co_name}"
