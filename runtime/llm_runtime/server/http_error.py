"""Errors of the server itself: about connections and callers, not about requests to a model.

Errors about a request come from the wire's dialect. The format of the body is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, final

import msgspec

from llm_protocol.dialect import WireResponse
from llm_runtime.server.limits import LATER_SECONDS

JSON = ("content-type", "application/json")
NO_SNIFFING = ("x-content-type-options", "nosniff")
"""Keeps browsers from guessing a content type other than the declared one."""

LIMIT_OWNER = "x-llm-runtime-limit-owner"
"""The header that names the limit's owner."""

REQUEST_ERROR = "invalid_request_error"
SERVER_ERROR = "server_error"


@final
class HttpError(Exception):
    """A refusal by the server. ``headers`` are sent with the response; ``close`` ends the connection after it.
    ``is_limit``: the request reached a limit of this server, which the response reports to the client.
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
        """The error object, as in OpenAI's format."""
        return {"message": self.message, "type": self.kind, "code": self.code, "param": self.param}

    def response(self, shape: Shape | None = None) -> WireResponse:
        """The HTTP response."""
        body = (shape or openai_shape)(self)
        return WireResponse(self.status, (JSON, *self.headers), msgspec.json.encode(body))


Shape: TypeAlias = Callable[[HttpError], object]
"""Encodes a refusal as the error body that a vendor's clients expect."""


def openai_shape(refused: HttpError) -> object:
    """The error body of OpenAI and compatible servers."""
    return {"error": refused.error()}


def anthropic_shape(refused: HttpError) -> object:
    """Anthropic's error body."""
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
    """Gemini's error body."""
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
    """Cohere's error body."""
    return {"message": refused.message, "error_type": refused.code}


def not_found(what: str) -> HttpError:
    """The error for an object that does not exist, or belongs to another caller: the two are indistinguishable."""
    return HttpError(404, "not_found", f"No such {what}.")


def body_too_large(limit: int) -> HttpError:
    """The error for a body of more than ``limit`` bytes, as sent or decompressed."""
    return HttpError(413, "body_too_large", f"The body is larger than {limit} bytes.", close=True)


def wrong_key() -> HttpError:
    """The error for a missing, unknown or expired key: the three are indistinguishable."""
    message = "Missing or incorrect API key; send it as Authorization: Bearer."
    return HttpError(401, "invalid_api_key", message, headers=(("www-authenticate", "Bearer"),), close=True)


def too_many_wrong_keys(seconds: int) -> HttpError:
    """The error for a wrong key from a peer that has sent too many wrong keys. ``seconds``: when to try again."""
    message = f"Too many incorrect API keys from this address; try again in {seconds} s."
    headers = (("retry-after", str(seconds)),)
    return HttpError(429, "too_many_incorrect_keys", message, kind="rate_limit_error", headers=headers, close=True)


def shutting_down() -> HttpError:
    """The error for a request during shutdown."""
    message = "The runtime is shutting down."
    return HttpError(503, "shutting_down", message, kind=SERVER_ERROR, headers=(("retry-after", "5"),), close=True)


def store_unavailable(message: str) -> HttpError:
    """Return the error for a request about a stored response while its store cannot be used."""
    headers = (("retry-after", str(LATER_SECONDS)),)
    return HttpError(503, "store_unavailable", message, kind=SERVER_ERROR, headers=headers)


def crashed() -> HttpError:
    """The error for a request after so many crashes that the runtime exits to be restarted."""
    return HttpError(500, "server_error", "The runtime crashed; try again.", kind=SERVER_ERROR, close=True)


def too_many_connections() -> HttpError:
    """The error for a connection above the limit, and for one that is closed in favour of another."""
    message = "Too many connections; try again in a second."
    headers = (("retry-after", "1"),)
    return HttpError(
        429, "connection_limit", message, kind="rate_limit_error", headers=headers, close=True, is_limit=True
    )
