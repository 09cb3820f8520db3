"""Messages: frozen structs, passed by reference, never encoded inside the process.

A `Call[R]` is answered with an `R`, which is how a type checker knows what `await ref.call(message)` returns.
A `Cast` is not answered. An actor's messages form a union; match it exhaustively and end in `assert_never`.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

import msgspec

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class ActorMessage(msgspec.Struct, frozen=True):
    """What every message is. Only `Call` and `Cast` derive from it."""

    def fingerprint(self) -> Hashable | None:
        """Return what two messages with the same payload share, or `None` where there is no payload to blame.

        Override it in messages that carry what a caller wrote, and leave out unique ids. A message whose fields are
        only numbers and names must not: equal ones of other callers would be refused after two crashes.
        """
        return None


class Asks(ActorMessage, Generic[R_co], frozen=True):
    """A call as its sender sees it: whoever takes a wider type may ask for the narrower one."""


class Call(Asks[R], Generic[R], frozen=True):
    """A message that expects one reply of exactly type `R`. Derive from this: `class Add(Call[int], frozen=True)`."""


class Cast(ActorMessage, frozen=True):
    """A message that expects none."""
