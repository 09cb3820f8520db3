"""How many bytes of requests are in memory at once."""

from __future__ import annotations

from typing import final

from llm_runtime.server.http_error import SERVER_ERROR, HttpError


@final
class BodyBudget:
    """Bytes of all bodies together, from their arrival until the answer to them is given: as long as they, or what
    was read from them, are in memory. ``limit`` is in bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.held = 0

    def hold(self, size: int) -> None:
        """Count ``size`` more bytes. Raises `HttpError` when there is no room, and counts nothing then."""
        if self.held + size > self._limit:
            message = "The requests that are being worked on take all the memory there is for them; try again soon."
            headers = (("retry-after", "1"),)
            raise HttpError(
                503, "body_memory_full", message, kind=SERVER_ERROR, headers=headers, close=True, is_limit=True
            )
        self.held += size

    def release(self, size: int) -> None:
        """Forget ``size`` bytes that were held."""
        self.held -= size


@final
class HeldBodies:
    """What one connection holds of the budget."""

    __slots__ = ("_budget", "size")

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self.size = 0

    def hold(self, size: int) -> None:
        """See `BodyBudget.hold`."""
        self._budget.hold(size)
        self.size += size

    def release(self, size: int) -> None:
        """Give ``size`` bytes back; nothing after `release_all`."""
        size = min(size, self.size)
        self._budget.release(size)
        self.size -= size

    def release_all(self) -> None:
        """Give back what is held."""
        self.release(self.size)
