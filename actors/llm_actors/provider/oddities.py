"""Logs unusual features of a provider's responses, once each, because they tend to be in every response."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import final

log = logging.getLogger(__name__)

MOST_ODDITIES = 100
"""The most lines logged for one provider. The limit is needed because the texts come from the vendor."""


@final
class Oddities:
    """Logs the unusual features of one provider, each only once. Values of fields are never logged, because they may
    contain a prompt.
    """

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._reported: set[tuple[str, str]] = set()

    def note_fields(self, names: Iterable[str]) -> None:
        """Log fields that were left out of a response because their type was unexpected."""
        for name in names:
            if self._is_new("field", name):
                log.warning("%s: the field %s has an unexpected type and is ignored", self._provider, name)

    def note_reason(self, reason: str) -> None:
        """Log an unknown finish reason. The response is used nevertheless."""
        if self._is_new("reason", reason):
            log.warning("%s: unknown finish reason %r; the response is used", self._provider, reason)

    def note_not_found(self, url: str) -> None:
        """Log a 404, which most often means a wrong ``base_url``. ``url`` must have no query: it may contain a key."""
        if self._is_new("not found", url):
            log.warning("%s: HTTP 404 at %s; is base_url the address of the vendor's API?", self._provider, url)

    def _is_new(self, kind: str, word: str) -> bool:
        if (kind, word) in self._reported or len(self._reported) >= MOST_ODDITIES:
            return False
        self._reported.add((kind, word))
        return True
