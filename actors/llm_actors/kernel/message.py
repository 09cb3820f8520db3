"""Messages: frozen structs, passed by reference, never encoded inside the process.

The reply to a `Call[R]` is an `R`, so a type checker knows what `await ref.call(message)` returns. A `Cast` has no
reply. The messages of an actor form a union: match it exhaustively and end with `assert_never`.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

import msgspec

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class ActorMessage(msgspec.Struct, frozen=True):
    """The base of all messages. Only `Call` and `Cast` derive from it."""

    def fingerprint(self) -> Hashable | None:
        """Return a value that messages with the same payload share, or `None` if there is no payload to blame.

        Override it in messages that carry data from a caller, and leave unique ids out of it. Do not override it in
        messages that have only numbers and names: after two crashes, equal messages of other callers would be refused.
        """
        return None


class BaseCall(ActorMessage, Generic[R_co], frozen=True):
    """A call as its sender sees it: covariant in the type of the reply."""


class Call(BaseCall[R], Generic[R], frozen=True):
    """A message that expects one reply of exactly type `R`. Derive from this: `class Add(Call[int], frozen=True)`."""


class Cast(ActorMessage, frozen=True):
    """A message without a reply."""
