"""Events about attempts, for the observers that a program has added. A daemon has no observers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, final

import msgspec

from llm_protocol.response import Usage


class AttemptStarted(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt begins. For a member of a strategy, ``request_id`` is the member's id, which begins with the id of the
    request.
    """

    request_id: str
    provider: str
    model: str


class AttemptEnded(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt has ended. ``outcome`` is ``"ok"`` or a kind of failure; ``cost`` is in US dollars, ``None`` if
    unknown.
    """

    request_id: str
    provider: str
    model: str
    outcome: str
    duration_s: float
    usage: Usage | None = None
    cost: float | None = None


AttemptEvent: TypeAlias = AttemptStarted | AttemptEnded


@final
class AttemptListener:
    """``tell`` is called synchronously with each event, and must not raise or wait. ``None``: no observers."""

    __slots__ = ("tell",)

    def __init__(self) -> None:
        self.tell: Callable[[AttemptEvent], None] | None = None
