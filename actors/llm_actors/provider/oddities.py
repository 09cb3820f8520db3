"""What is odd in a provider's answers, told in the log once each: a server that does it does it in every answer."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import final

log = logging.getLogger(__name__)

MOST_ODDITIES = 100
"""Lines logged for one provider: the words are the vendor's, who may have any number of them."""


@final
class Oddities:
    """The oddities of one provider that were told already. Never names a value of a field: it may be a prompt's."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._told: set[tuple[str, str]] = set()

    def note_fields(self, names: Iterable[str]) -> None:
        """Fields that came with a type of their own and were left out of an answer."""
        for name in names:
            if self._is_new("field", name):
                log.warning("%s: the field %s has a type that is not known and is left out", self._provider, name)

    def note_reason(self, reason: str) -> None:
        """A finish reason that is not known; the answer counts all the same."""
        if self._is_new("reason", reason):
            log.warning("%s: the finish reason %r is not known", self._provider, reason)

    def note_not_found(self, url: str) -> None:
        """A 404: most often ``base_url`` is not what the vendor meant. ``url`` has no query."""
        if self._is_new("not found", url):
            log.warning("%s: HTTP 404 at %s", self._provider, url)

    def _is_new(self, kind: str, word: str) -> bool:
        if (kind, word) in self._told or len(self._told) >= MOST_ODDITIES:
            return False
        self._told.add((kind, word))
        return True
