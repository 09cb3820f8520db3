"""Keys that change at run time. A key is fetched again when it is old, and when the vendor refuses it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final, final

import trio

from llm_protocol.errors import AuthenticationError
from llm_protocol.secret import Secret

FETCH_SECONDS: Final = 10.0
"""The time limit for fetching a key, in seconds."""

RETRY_SECONDS: Final = 5.0
"""If a key could not be renewed and the old key stays in use: seconds until it is tried again."""

log = logging.getLogger(__name__)


@final
class KeyRenewer:
    """Holds the key of one provider. ``fetch`` returns a new one; its exceptions must not contain the key.

    Any number of tasks may wait for a key. One of them fetches it, in at most `FETCH_SECONDS`.
    """

    def __init__(self, name: str, fetch: Callable[[], Awaitable[Secret]], max_age_s: float) -> None:
        self._name = name
        self._fetch = fetch
        self._max_age_s = max_age_s
        self._due = -1.0
        self._lock = trio.Lock()
        self._begun = 0
        """The number of fetches that were begun."""
        self._completed = 0
        """The number of the latest fetch that was not cancelled."""
        self._problem = ""
        """Why the last fetch failed; empty if it did not fail, or was cancelled."""
        self.current: Secret | None = None

    async def refresh(self) -> None:
        """Fetch a new key if there is none or it is older than ``max_age_s``. If that fails, keep the old key, or raise
        `AuthenticationError` if there is none. If a fetch fails and there is no key, the tasks that waited for it fail,
        too, instead of fetching one after the other. Cancelling this ends a fetch that this call has begun.
        """
        if self.current is None or trio.current_time() >= self._due:
            has_to_wait = self._lock.locked()
            async with self._lock:
                if self.current is None and has_to_wait and self._problem:
                    raise self._failed()
                if self.current is None or trio.current_time() >= self._due:
                    await self._renew()

    async def renew(self, refused: Secret | None) -> bool:
        """Fetch a new key because the vendor has refused the key ``refused``. Return whether there is another key now.
        Raises only `trio.Cancelled`.
        """
        begun = self._begun
        async with self._lock:
            if self.current != refused:
                return True  # another task has renewed it already
            if self._completed > begun:
                return False  # another task has fetched it since it was refused, and got no other
            try:
                await self._renew()
            except AuthenticationError:
                return False
            return self.current != refused

    async def _renew(self) -> None:
        why = f"fetching it took longer than {FETCH_SECONDS:g} s"
        found: Secret | None = None
        self._begun += 1
        self._problem = ""
        with trio.move_on_after(FETCH_SECONDS):
            try:
                found = await self._fetch()
            except Exception as exc:  # raised by a command, a file or a function of the program
                why = str(exc) if isinstance(exc, ValueError) else type(exc).__name__
        self._completed = self._begun
        if found is not None:
            self.current, self._due = found, trio.current_time() + self._max_age_s
        elif self.current is not None:
            log.warning("the key of %s was not renewed: %s; the old one stays in use", self._name, why)
            self._due = trio.current_time() + RETRY_SECONDS
        else:
            self._problem = why
            raise self._failed()

    def _failed(self) -> AuthenticationError:
        return AuthenticationError(f"{self._name}: the key is not available: {self._problem}")
