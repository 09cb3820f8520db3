"""Telling faults apart."""

from __future__ import annotations

import traceback
from pathlib import Path


def place(exc: BaseException) -> str:
    """What happened and where: two faults with the same are taken for one."""
    frames = [frame for frame in traceback.extract_tb(exc.__traceback__) if frame.name != "step"]
    last = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[-1:-4:-1])
    said = "" if isinstance(exc, AssertionError) else f"{str(exc)[:80]!r} "
    return f"{type(exc).__name__} {said}{last}"
