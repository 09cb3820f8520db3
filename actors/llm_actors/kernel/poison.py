"""Payloads that crash the actor that handles them are refused after the second crash.

The kernel delivers no message twice, but a caller may send the same payload again and again. Only hashes of
fingerprints are kept, never a payload.

A crash counts against a payload only if the caller was still waiting, and only a second crash at the same place in
the code bans it: a cancellation, a deadline or a temporary fault must not ban a harmless payload.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple, final

POISON_CRASHES = 2
"""A payload is refused after this many crashes at the same place in the code, without a success in between."""

POISON_ENTRIES = 256
"""The most fingerprints per mailbox; the least recently seen is dropped."""

POISON_SECONDS = 600.0
"""Seconds that a payload is refused after its last crash. Then it is handled once more."""


class _Suspect(NamedTuple):
    """How often in a row a payload has crashed the actor at one place, and the time of the last crash."""

    site: str
    crashes: int
    crashed_at: float


@final
class Poison:
    """Counts the crashes that each payload caused. A fingerprint identifies a payload; at most ``entries`` payloads are
    remembered.
    ``now`` is in seconds of one monotonic clock.
    """

    __slots__ = ("_entries", "suspects")

    def __init__(self, entries: int = POISON_ENTRIES) -> None:
        self._entries = entries
        self.suspects: dict[int, _Suspect] = {}
        """Suspected payloads, by the hash of the fingerprint. While this is empty, the mailbox computes no
        fingerprints.
        """

    def crashed(self, fingerprint: Hashable, site: str, now: float) -> None:
        """Count one crash at ``site``. A crash elsewhere starts the count anew."""
        key = hash(fingerprint)
        before = self.suspects.pop(key, None)
        crashes = before.crashes + 1 if before is not None and before.site == site else 1
        self.suspects[key] = _Suspect(site, crashes, now)
        while len(self.suspects) > self._entries:
            del self.suspects[next(iter(self.suspects))]

    def handled(self, fingerprint: Hashable) -> None:
        """Clear a payload of suspicion, because it was handled without a crash."""
        self.suspects.pop(hash(fingerprint), None)

    def refuses(self, fingerprint: Hashable, now: float) -> bool:
        """Return whether this payload is refused at the time `now`."""
        key = hash(fingerprint)
        suspect = self.suspects.pop(key, None)
        if suspect is None:
            return False
        self.suspects[key] = suspect  # now the most recently seen
        return suspect.crashes >= POISON_CRASHES and now - suspect.crashed_at < POISON_SECONDS
