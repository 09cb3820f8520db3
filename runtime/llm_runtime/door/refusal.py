"""What the door itself says no to, in the error shape of OpenAI's API: everything that is about the connection and the
caller, and not about a request to a model. That is the dialect's to say.
"""

from __future__ import annotations

from typing import final

import msgspec

from llm_protocol.dialect import WireResponse

JSON = ("content-type", "application/json")
REQUEST_ERROR = "invalid_request_error"
SERVER_ERROR = "server_error"


@final
class Refused(Exception):  # noqa: N818  (it says what happened, as trio's TooSlowError does)
    """The door refuses. ``headers`` go with the answer; ``close`` ends the connection after it."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        kind: str = REQUEST_ERROR,
        param: str | None = None,
        headers: tuple[tuple[str, str], ...] = (),
        close: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.kind = kind
        self.param = param
        self.headers = headers
        self.close = close

    def error(self) -> dict[str, str | None]:
        """The error object."""
        return {"message": self.message, "type": self.kind, "code": self.code, "param": self.param}

    def response(self) -> WireResponse:
        """The HTTP answer."""
        body = msgspec.json.encode({"error": self.error()})
        return WireResponse(self.status, (JSON, *self.headers), body)


def not_found(what: str) -> Refused:
    """There is no such thing, or it is not the caller's: the two look alike."""
    return Refused(404, "not_found", f"There is no {what} here.")


def shutting_down() -> Refused:
    """The daemon takes no new work."""
    message = "The runtime is shutting down."
    return Refused(503, "shutting_down", message, kind=SERVER_ERROR, headers=(("retry-after", "5"),), close=True)


def too_many_connections() -> Refused:
    """There are `MAX_CONNECTIONS` already."""
    message = "Too many connections; try again in a second."
    return Refused(
        429, "connection_limit", message, kind="rate_limit_error", headers=(("retry-after", "1"),), close=True
    )
