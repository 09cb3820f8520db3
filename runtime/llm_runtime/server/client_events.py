"""The messages a client sends on a WebSocket, and the replies to invalid ones."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

from llm_protocol.codec.json import WireError, decode_object
from llm_protocol.content import JsonObject
from llm_runtime.server.http_error import HttpError
from llm_runtime.server.limits import ECHOED_CHARACTERS, LANE_NAME

EXAMPLE = '{"type": "response.create", "model": "auto", "input": "Say hi"}'
EXAMPLES = {
    "response.cancel": '{"type": "response.cancel", "response_id": "resp_…"}',
    "response.resume": '{"type": "response.resume", "response_id": "resp_…", "starting_after": 7}',
}
"""The examples that errors about frames of these types contain. Errors about other frames contain `EXAMPLE`."""
KNOWN = ("response.create", "response.cancel", "response.resume")

_LANE = re.compile(LANE_NAME)
T = TypeVar("T")


class ClientEventHead(msgspec.Struct, frozen=True):
    """The fields that every frame may have. ``event_id`` is chosen by the client and repeated in error frames."""

    type: str = ""
    stream_id: str | None = None
    event_id: str | None = None


class Cancel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``response.cancel``: cancel a response by its id, or the active response of a lane."""

    type: str
    response_id: str | None = None
    stream_id: str | None = None
    event_id: str | None = None


class Resume(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``response.resume``: send the events of a response after ``starting_after``."""

    type: str
    response_id: str
    starting_after: int = -1
    stream_id: str | None = None
    event_id: str | None = None


class Steer(msgspec.Struct, frozen=True, kw_only=True):
    """``response.steer``: more input for a response in progress, which is not supported."""

    input: str | list[JsonObject] = ""
    previous_response_id: str = ""


_HEAD = msgspec.json.Decoder(ClientEventHead)


def read_head(text: str) -> ClientEventHead:
    """Return the head of a frame. An ``event_id`` that is too long to repeat is removed. Raises `HttpError` if the
    frame is not valid.
    """
    try:
        head = _HEAD.decode(text)
    except msgspec.ValidationError as exc:
        raise _invalid(str(exc)) from None
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        head = read(text, ClientEventHead)  # it may still be JSON that only Python's own decoder accepts
    if head.event_id is not None and len(head.event_id) > ECHOED_CHARACTERS:
        head = msgspec.structs.replace(head, event_id=None)
    return head


def read(text: str, kind: type[T]) -> T:
    """Decode the whole frame as a ``kind``. Raises `HttpError`."""
    frame: JsonObject = {}
    try:
        frame = decode_object(text)
        return msgspec.convert(frame, kind)
    except WireError:
        raise HttpError(400, "invalid_json", f"The frame is not a JSON object. Send, for example, {EXAMPLE}") from None
    except msgspec.ValidationError as exc:
        raise _invalid(str(exc), EXAMPLES.get(str(frame.get("type")), EXAMPLE)) from None


def check_lane(name: str | None) -> None:
    """Raise `HttpError` unless ``stream_id`` is a valid lane name."""
    if name is not None and not _LANE.fullmatch(name):
        message = f"A stream_id must match {LANE_NAME}."
        raise HttpError(400, "invalid_stream_id", message, param="stream_id")


def unknown_type(head: ClientEventHead) -> HttpError:
    """The error for a frame of an unknown type."""
    message = f"Unknown type {head.type[:100]!r}; known are {', '.join(KNOWN)}. Send, for example, {EXAMPLE}"
    return HttpError(400, "unknown_event_type", message, param="type")


def encode_refusal(refused: HttpError, stream_id: str | None, event_id: str | None) -> bytes:
    """The error frame for a refusal by the server."""
    error: dict[str, object] = dict(refused.error())
    if refused.headers:
        error["headers"] = dict(refused.headers)
    fields: dict[str, object] = {"status": refused.status, "error": error}
    if refused.is_limit:
        fields["llm_runtime"] = {"limit_owner": "server"}
    return _encode("error", fields, stream_id, event_id)


def encode_cancelled(head: ClientEventHead, response_id: str) -> bytes:
    """Return the reply to ``response.cancel``: the response has ended for all its followers."""
    return _encode("llm-runtime:cancelled", {"response_id": response_id}, head.stream_id, head.event_id)


def encode_steer_failed(head: ClientEventHead, steer: Steer) -> bytes:
    """Return the reply to ``response.steer``. It includes the input, so that the client can send it in another
    request. The reply belongs to no response's stream, so its sequence number is the one before the first.
    """
    error = {"type": "invalid_request_error", "code": "steering_not_supported", "message": "Steering is not supported."}
    known = {"input": steer.input, "previous_response_id": steer.previous_response_id}
    fields: dict[str, object] = {"sequence_number": -1, "error": error, "steer": known}
    return _encode("response.steer.failed", fields, head.stream_id, head.event_id)


def _encode(kind: str, fields: dict[str, object], stream_id: str | None, event_id: str | None) -> bytes:
    optional = {"stream_id": stream_id, "event_id": event_id}
    echoed = {name: text for name, text in optional.items() if text is not None and len(text) <= ECHOED_CHARACTERS}
    return msgspec.json.encode({"type": kind, **fields} | echoed)


def _invalid(problem: str, example: str = EXAMPLE) -> HttpError:
    return HttpError(400, "invalid_request", f"{problem}. Send, for example, {example}")
