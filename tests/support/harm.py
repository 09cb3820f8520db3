"""What must not come of a cancellation: a crash, a restart, a ban, an open circuit, a word in the log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from llm_actors.kernel import ChildStatus, TreeNode
from llm_actors.selector import CircuitState
from llm_runtime.tree import Tree


class Logged(logging.Handler):
    """Errors, and warnings of the kernel, which are about actors."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR or record.name.startswith("llm_actors.kernel"):
            self.lines.append(record.getMessage())


@contextmanager
def nothing_logged() -> Iterator[Logged]:
    handler = Logged()
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield handler
    finally:
        root.removeHandler(handler)
    assert handler.lines == []


def nodes(node: TreeNode) -> Iterator[TreeNode]:
    yield node
    for child in node.children:
        yield from nodes(child)


def assert_unharmed(tree: Tree) -> None:
    """No actor crashed, was restarted or refuses a payload; no circuit is open."""
    for node in nodes(tree.root.tree()):
        box = node.mailbox
        assert (node.name, node.status, node.restarts) == (node.name, ChildStatus.RUNNING, 0)
        assert (node.name, box.crashes, box.poisoned, box.in_hand, box.depth) == (node.name, 0, 0, 0, 0)
    now = trio.current_time()
    circuits = tree.selector.circuits
    assert {circuits.provider(name, now).state for name in tree.services.providers} == {CircuitState.CLOSED}
    assert list(circuits.not_closed(now)) == []
