"""The machine's clocks, for what outlives a process.

Trio's clock starts anew with each process. The age of what lies in a file is counted on the machine's own clock since
it was switched on, which nobody sets, and which goes on while the machine sleeps. Only from one boot to the next
there is nothing but the wall clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class MachineClock(NamedTuple):
    """``since_boot`` and ``wall`` give seconds. ``boot`` names this boot; empty where the system does not say."""

    since_boot: Callable[[], float]
    wall: Callable[[], float]
    boot: str


def machine_clock() -> MachineClock:
    """The clocks of the machine we run on."""
    try:
        boot = _BOOT_ID.read_text("ascii").strip()
    except (OSError, ValueError):
        boot = ""
    return MachineClock(_since_boot, time.time, boot)


def _since_boot() -> float:
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)
