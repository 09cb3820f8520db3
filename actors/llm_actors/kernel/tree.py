"""A snapshot of the running tree, for display and for `GET /v1/runtime/tree`."""

from __future__ import annotations

from enum import Enum

import msgspec

from llm_actors.kernel.mailbox import MailboxStatistics


class ChildStatus(Enum):
    """The state of a child."""

    NEW = "new"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    RESTARTING = "restarting"
    PARKED = "parked"
    ENDED = "ended"


class TreeNode(msgspec.Struct, frozen=True, kw_only=True):
    """One child, and its children if it is a supervisor. `uptime` is in seconds since its last start."""

    name: str
    status: ChildStatus
    restarts: int
    uptime: float
    last_crash: str
    mailbox: MailboxStatistics
    children: tuple[TreeNode, ...] = ()
