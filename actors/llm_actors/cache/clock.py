"""The machine's clocks, for data that outlives a process.

Trio's clock starts anew with each process. So the age of an entry in a file is measured by the time since the machine
booted: nobody can set that clock, and it continues while the machine sleeps. Across boots only the wall clock is
left.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class MachineClock(NamedTuple):
    """``since_boot`` and ``wall`` return seconds. ``boot`` identifies this boot; empty if the system provides no such
    id.
    """

    since_boot: Callable[[], float]
    wall: Callable[[], float]
    boot: str


def machine_clock() -> MachineClock:
    """Return the clocks of this machine."""
    try:
        boot = _BOOT_ID.read_text("ascii").strip()
    except (OSError, ValueError):
        boot = ""
    return MachineClock(_since_boot, time.time, boot)


def _since_boot() -> float:
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)
