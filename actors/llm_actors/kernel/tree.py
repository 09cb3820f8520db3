"""A picture of the live tree, for people and for `GET /v1/runtime/tree`."""

from __future__ import annotations

from enum import Enum

import msgspec

from llm_actors.kernel.mailbox import MailboxStatistics


class ChildStatus(Enum):
    """What a child is doing. An incarnation only moves forward; a child comes round again."""

    NEW = "new"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    RESTARTING = "restarting"
    PARKED = "parked"
    ENDED = "ended"


class TreeNode(msgspec.Struct, frozen=True, kw_only=True):
    """One child, and its children if it is a supervisor. `uptime` is that of the present incarnation, in seconds."""

    name: str
    status: ChildStatus
    restarts: int
    uptime: float
    last_crash: str
    mailbox: MailboxStatistics
    children: tuple[TreeNode, ...] = ()


def render(node: TreeNode, indent: str = "") -> str:
    """Return the tree as text, one line per child."""
    line = f"{indent}{node.name}  {node.status.value}  restarts {node.restarts}  up {node.uptime:.1f} s"
    if node.mailbox.depth:
        line += f"  mailbox {node.mailbox.depth}/{node.mailbox.capacity}"
    if node.last_crash:
        line += f"  last crash: {node.last_crash}"
    return "\n".join([line, *(render(child, indent + "  ") for child in node.children)])
