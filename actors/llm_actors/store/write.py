"""The interface of a change to the store's file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import sqlite3


class Write(Protocol):
    """One change to the file, made in the store's thread."""

    @property
    def size(self) -> int:
        """The approximate size in bytes."""
        ...

    def apply(self, db: sqlite3.Connection, owner: str) -> None:
        """Make the change within an open transaction. ``owner`` is the name of this process."""
        ...
