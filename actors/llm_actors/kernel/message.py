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


class Message(msgspec.Struct, frozen=True):
    """What every message is. Only `Call` and `Cast` derive from it."""

    def fingerprint(self) -> Hashable:
        """Return what two messages with the same payload share. Override it to leave out a unique id."""
        try:
            return type(self), hash(self)
        except TypeError:
            return type(self), hash(repr(self))


class Asks(Message, Generic[R_co], frozen=True):
    """A call as its sender sees it: whoever takes a wider type may ask for the narrower one."""


class Call(Asks[R], Generic[R], frozen=True):
    """A message that expects one reply of exactly type `R`. Derive from this: `class Add(Call[int], frozen=True)`."""


class Cast(Message, frozen=True):
    """A message that expects none."""
