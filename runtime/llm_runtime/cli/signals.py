"""Ctrl-C, for commands that do not run until they are stopped."""

from __future__ import annotations

import signal

import trio


async def cancel_on_signal(scope: trio.CancelScope, *, task_status: trio.TaskStatus[None]) -> None:
    """Cancel ``scope`` on SIGINT or SIGTERM. Has started once it listens for signals; runs until it is cancelled."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            scope.cancel(reason="a signal")
