"""How many bytes of requests are in memory at once."""

from __future__ import annotations

from typing import final

from llm_runtime.server.http_error import HttpError


@final
class BodyBudget:
    """Bytes of all bodies together, from their arrival until the answer to them is given: as long as they, or what
    was read from them, are in memory.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.held = 0

    def hold(self, size: int) -> None:
        """Count ``size`` more bytes. Raises `HttpError` when there is no room, and counts nothing then."""
        if self.held + size > self._limit:
            message = "The requests that are being worked on take all the memory there is for them; try again soon."
            headers = (("retry-after", "1"),)
            raise HttpError(503, "body_memory_full", message, kind="server_error", headers=headers, close=True)
        self.held += size

    def release(self, size: int) -> None:
        """Forget ``size`` bytes that were held."""
        self.held -= size
