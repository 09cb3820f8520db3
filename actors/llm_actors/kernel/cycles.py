"""Circles of actors that wait for one another.

Each actor's mailbox knows which others it is calling right now. A call is refused when its target already waits,
directly or through others, for the caller. Actors with spare slots might have survived such a circle on a quiet day;
it would have hung them on a busy one, so it is refused on every day.
"""

from __future__ import annotations

from llm_actors.kernel.mailbox import Mailbox


def find_cycle(caller: Mailbox, target: Mailbox) -> tuple[str, ...] | None:
    """Return the names around the circle that `caller` calling `target` would close, or None."""
    if caller is target:
        return caller.name, target.name
    trail = _trail(target, caller, {target})
    return None if trail is None else (caller.name, *trail)


def _trail(start: Mailbox, goal: Mailbox, seen: set[Mailbox]) -> tuple[str, ...] | None:
    for callee in start.calling:
        if callee is goal:
            return start.name, goal.name
        if callee in seen:
            continue
        seen.add(callee)
        rest = _trail(callee, goal, seen)
        if rest is not None:
            return start.name, *rest
    return None


def begin(caller: Mailbox, target: Mailbox) -> None:
    """Record that one more call is under way."""
    caller.calling[target] = caller.calling.get(target, 0) + 1


def finish(caller: Mailbox, target: Mailbox) -> None:
    """Record that one call is over."""
    left = caller.calling[target] - 1
    if left:
        caller.calling[target] = left
    else:
        del caller.calling[target]
