"""What a change of the store's file is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import sqlite3


class Write(Protocol):
    """One change of the file, made in the store's thread."""

    @property
    def size(self) -> int:
        """Bytes, about."""
        ...

    def apply(self, db: sqlite3.Connection, owner: str) -> None:
        """Make it, within an open transaction. ``owner`` is this process among those that share the file."""
        ...
