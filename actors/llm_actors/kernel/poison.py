"""Payloads that crash their reader are refused after the second crash.

No message is redelivered, but a caller may send the same one again, and again. Only hashes are kept.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import final

POISON_CRASHES = 2
"""So many crashes by one payload, and it is refused from then on."""

POISON_ENTRIES = 256
"""Fingerprints remembered per mailbox; the least recently seen is forgotten first."""


@final
class Poison:
    """A bounded count of crashes by fingerprint."""

    __slots__ = ("_crashes", "_entries")

    def __init__(self, entries: int = POISON_ENTRIES) -> None:
        self._entries = entries
        self._crashes: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._crashes)

    def crashed(self, fingerprint: Hashable) -> None:
        """Count one crash."""
        key = hash(fingerprint)
        self._crashes[key] = self._crashes.pop(key, 0) + 1
        while len(self._crashes) > self._entries:
            del self._crashes[next(iter(self._crashes))]

    def refuses(self, fingerprint: Hashable) -> bool:
        """Tell whether this payload has had its chances."""
        key = hash(fingerprint)
        if key not in self._crashes:
            return False
        crashes = self._crashes[key] = self._crashes.pop(key)  # now the one that was seen last
        return crashes >= POISON_CRASHES
