"""Check whether a request is a WebSocket handshake (RFC 6455, 4.2.1). A refusal names the mistake."""

from __future__ import annotations

import binascii
from base64 import b64decode

from llm_runtime.server.http1 import Request
from llm_runtime.server.http_error import HttpError, shutting_down

_UPGRADE = (("upgrade", "websocket"),)
_VERSION = (("sec-websocket-version", "13"),)
_KEY_BYTES = 16


def check_handshake(request: Request, *, enabled: bool, draining: bool) -> None:
    """Raise `HttpError` unless ``request`` is a valid opening handshake. If WebSockets are disabled, the status is 426,
    which tells clients to use HTTP instead.
    """
    if draining:
        raise shutting_down()
    if not enabled:
        raise HttpError(426, "upgrade_required", "WebSockets are disabled here; use POST /v1/responses.")
    options = [each.strip() for each in request.headers.get("connection", "").lower().split(",")]
    if not request.wants_upgrade or "upgrade" not in options:
        message = "This is a WebSocket endpoint: connect with ws://, or POST to it."
        raise HttpError(426, "upgrade_required", message, headers=_UPGRADE)
    if request.method != "GET" or request.version != "1.1" or request.body:
        raise HttpError(400, "bad_handshake", "A WebSocket handshake must be a GET request of HTTP/1.1 without a body.")
    if request.headers.get("sec-websocket-version") != "13":
        raise HttpError(426, "bad_handshake", "Only WebSocket version 13 is supported.", headers=_VERSION)
    if not _is_key(request.headers.get("sec-websocket-key", "")):
        raise HttpError(400, "bad_handshake", "Sec-WebSocket-Key must be 16 bytes in base64.")
    if not request.headers.get("sec-websocket-protocol", "").isascii():
        raise HttpError(400, "bad_handshake", "Sec-WebSocket-Protocol must be ASCII.")


def _is_key(value: str) -> bool:
    try:
        return len(b64decode(value, validate=True)) == _KEY_BYTES
    except (binascii.Error, ValueError):
        return False
