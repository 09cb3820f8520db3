"""What the door itself says no to: everything that is about the connection and the caller, and not about a request to a
model. That is the dialect's to say; the shape of an error is the route's dialect's here, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, final

import msgspec

from llm_protocol.dialect import WireResponse

JSON = ("content-type", "application/json")
NO_SNIFFING = ("x-content-type-options", "nosniff")
"""Keeps browsers from taking an answer for something else than it says it is."""

LIMIT_OWNER = "x-llm-runtime-limit-owner"
"""The header that says whose limit refused."""

REQUEST_ERROR = "invalid_request_error"
SERVER_ERROR = "server_error"


@final
class HttpError(Exception):
    """The door refuses. ``headers`` go with the answer; ``close`` ends the connection after it. ``is_limit``: because
    of one of this server's own limits, which clients are told.
    """

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
        is_limit: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.kind = kind
        self.param = param
        self.headers = (*headers, (LIMIT_OWNER, "server")) if is_limit else headers
        self.is_limit = is_limit
        self.close = close

    def error(self) -> dict[str, str | None]:
        """The error object."""
        return {"message": self.message, "type": self.kind, "code": self.code, "param": self.param}

    def response(self, shape: Shape | None = None) -> WireResponse:
        """The HTTP answer."""
        body = (shape or openai_shape)(self)
        return WireResponse(self.status, (JSON, *self.headers), msgspec.json.encode(body))


Shape: TypeAlias = Callable[[HttpError], object]
"""Puts a refusal into the error body that a vendor's clients read."""


def openai_shape(refused: HttpError) -> object:
    """As OpenAI says it, and everyone compatible."""
    return {"error": refused.error()}


def anthropic_shape(refused: HttpError) -> object:
    """As Anthropic says it."""
    types = {
        401: "authentication_error",
        403: "permission_error",
        404: "not_found_error",
        413: "request_too_large",
        429: "rate_limit_error",
    }
    fallback = "invalid_request_error" if refused.status < 500 else "api_error"
    error = {"type": types.get(refused.status, fallback), "message": refused.message}
    return {"type": "error", "error": error, "request_id": None}


def gemini_shape(refused: HttpError) -> object:
    """As Gemini says it."""
    words = {
        401: "UNAUTHENTICATED",
        403: "PERMISSION_DENIED",
        404: "NOT_FOUND",
        429: "RESOURCE_EXHAUSTED",
        503: "UNAVAILABLE",
    }
    word = words.get(refused.status, "INVALID_ARGUMENT" if refused.status < 500 else "INTERNAL")
    return {"error": {"code": refused.status, "message": refused.message, "status": word}}


def cohere_shape(refused: HttpError) -> object:
    """As Cohere says it."""
    return {"message": refused.message, "error_type": refused.code}


def not_found(what: str) -> HttpError:
    """There is no such thing, or it is not the caller's: the two look alike."""
    return HttpError(404, "not_found", f"There is no {what} here.")


def body_too_large(limit: int) -> HttpError:
    """The body has more than ``limit`` bytes, or would have once it was decompressed."""
    return HttpError(413, "body_too_large", f"The body is larger than {limit} bytes.", close=True)


def wrong_key() -> HttpError:
    """There is no key, or none that is known, or one that has expired: the three look alike."""
    message = "Incorrect API key provided, or none; send it as Authorization: Bearer."
    return HttpError(401, "invalid_api_key", message, headers=(("www-authenticate", "Bearer"),), close=True)


def too_many_wrong_keys(seconds: int) -> HttpError:
    """A wrong key after many."""
    message = f"Too many incorrect API keys came from this address; try again in {seconds} s."
    headers = (("retry-after", str(seconds)),)
    return HttpError(429, "too_many_incorrect_keys", message, kind="rate_limit_error", headers=headers, close=True)


def shutting_down() -> HttpError:
    """The daemon takes no new work."""
    message = "The runtime is shutting down."
    return HttpError(503, "shutting_down", message, kind=SERVER_ERROR, headers=(("retry-after", "5"),), close=True)


def crashed() -> HttpError:
    """So much has crashed that the runtime ends, to be started again."""
    return HttpError(500, "server_error", "The runtime crashed; try again.", kind=SERVER_ERROR, close=True)


def too_many_connections() -> HttpError:
    """There is no room for another connection, or this one has to make way."""
    message = "Too many connections; try again in a second."
    headers = (("retry-after", "1"),)
    return HttpError(
        429, "connection_limit", message, kind="rate_limit_error", headers=headers, close=True, is_limit=True
    )
