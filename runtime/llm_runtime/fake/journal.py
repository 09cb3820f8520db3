"""The journal: the requests that the fake has received, and their outcomes. Headers, and thus keys, are not kept."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import final

import trio

from llm_protocol.codec.json import WireError, decode_json
from llm_protocol.content import JsonObject
from llm_protocol.dialect import ClientRequest
from llm_protocol.requests import AnyRequest, RequestType

MAX_REQUESTS = 256
"""The most requests that are kept. The oldest are dropped first."""

MAX_BODY_BYTES = 64 * 1024
"""The most bytes that are kept of each body."""


class CallState(StrEnum):
    """How far a request has come."""

    OPEN = "open"
    """Its response is being sent."""
    ANSWERED = "answered"
    """The whole response was sent, including an error or fault."""
    LEFT = "left"
    """The client left before the end."""


@dataclass(slots=True)
class Seen:
    """One request. Times are in seconds since the fake was started."""

    number: int
    kind: str
    method: str
    path: str
    body: bytes
    began_s: float
    ended_s: float | None = None
    state: CallState = CallState.OPEN
    status: int | None = None
    """The status of the response; ``None`` if the response has not been decided yet."""
    model: str | None = None
    """The model that was requested; ``None`` if the request could not be decoded, and for model lists."""
    request_type: RequestType | None = None
    request: AnyRequest | None = None
    """The decoded request; ``None`` as for ``model``, and if its body is longer than `MAX_BODY_BYTES`."""
    stream: bool = False

    def decoded(self, inbound: ClientRequest, size: int) -> None:
        """Record the decoded request, whose body has ``size`` bytes. If that is more than `MAX_BODY_BYTES`, the
        request itself is not kept.
        """
        self.stream = inbound.stream
        self.model, self.request_type = inbound.request.model, inbound.request.request_type
        self.request = inbound.request if size <= MAX_BODY_BYTES else None

    def to_json(self) -> JsonObject:
        """Return it as JSON data, for ``GET /_fake/journal``."""
        try:
            body = decode_json(self.body) if self.body else None
        except WireError:
            body = self.body.decode("utf-8", "replace")
        return {
            "number": self.number,
            "kind": self.kind,
            "method": self.method,
            "path": self.path,
            "model": self.model,
            "request_type": None if self.request_type is None else self.request_type.value,
            "stream": self.stream,
            "body": body,
            "began_s": round(self.began_s, 6),
            "ended_s": None if self.ended_s is None else round(self.ended_s, 6),
            "state": self.state.value,
            "status": self.status,
        }


@final
@dataclass(slots=True)
class Journal:
    """The latest requests, oldest first, and counts of all requests."""

    requests: deque[Seen] = field(default_factory=lambda: deque(maxlen=MAX_REQUESTS))
    asked: int = 0
    answered: int = 0
    left: int = 0
    """The number of requests whose client left early."""
    connections: int = 0
    """The number of open connections."""
    _started: float = field(default_factory=trio.current_time)
    _changed: trio.Event = field(default_factory=trio.Event)

    @property
    def open(self) -> int:
        """The number of requests whose response is being sent."""
        return self.asked - self.answered - self.left

    async def until(self, condition: Callable[[Journal], bool]) -> None:
        """Wait until ``condition(journal)`` is true. There is no time limit; use a cancel scope."""
        while not condition(self):
            await self._changed.wait()

    def to_json(self) -> JsonObject:
        """Return it as JSON data, for ``GET /_fake/journal``."""
        counts = ("asked", "answered", "left", "open", "connections")
        return {name: getattr(self, name) for name in counts} | {"requests": [each.to_json() for each in self.requests]}

    # -- written by the connections ----------------------------------------------------------------------------------

    def begin(self, kind: str, method: str, path: str, body: bytes) -> Seen:
        """Record a new request."""
        self.asked += 1
        seen = Seen(self.asked, kind, method, path, body[:MAX_BODY_BYTES], trio.current_time() - self._started)
        self.requests.append(seen)
        self.changed()
        return seen

    def end(self, seen: Seen, *, left: bool) -> None:
        """Record the end of a response. ``left``: the client disconnected before the response was complete."""
        seen.ended_s = trio.current_time() - self._started
        seen.state = CallState.LEFT if left else CallState.ANSWERED
        if left:
            self.left += 1
        else:
            self.answered += 1
        self.changed()

    def changed(self) -> None:
        """Wake the tasks in `until`, which check their condition again."""
        self._changed.set()
        self._changed = trio.Event()
