"""The native protocol: the canonical structs as JSON, which the daemon and its client (`llm_runtime.connect`) exchange
over the WebSocket of the Responses API.

A vendor's wire has only that vendor's features. In the native protocol a request keeps all parameters and its policy,
events and errors keep their types, and a response has its decision record and its members.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, TypeAlias, final

import msgspec

from llm_protocol.codec.body import json_body
from llm_protocol.codec.fields import bad_request, typed
from llm_protocol.codec.json import LIMITS, JsonDecoder, WireError, encode_json
from llm_protocol.content import JsonObject
from llm_protocol.dialect import ClientRequest, Frame
from llm_protocol.errors import ProtocolError
from llm_protocol.events import ANY_DELTAS, Event, count_pieces, cut, merged, without_lengths
from llm_protocol.failures import RULES, Failure, FailureKind, kind_of_status
from llm_protocol.requests import AnyRequest

FORM = "native"
"""The `ClientRequest.form` of a request of the native protocol."""

RESUME_SECONDS = 10.0
"""Seconds for which the daemon keeps a response after its connection broke, so that the client can resume it."""

CREATE = "llm-runtime:create"
"""The ``type`` of a frame with a request."""

_ID = re.compile(r"[A-Za-z0-9_.-]{1,128}")

Id: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^resp_[0-9a-f]{32}$")]
"""A response's id. The client makes it, so that it can resume a response even if no event of it has arrived."""


class CreateFrame(msgspec.Struct, frozen=True, kw_only=True):
    """The frame of a request. ``stream_id`` names the lane. ``event_id`` is the client's id of the frame. ``stream``
    says whether to request a stream from the provider.
    """

    type: str = CREATE
    response_id: Id
    stream_id: str | None = None
    event_id: str | None = None
    stream: bool = True
    request: AnyRequest


class NativeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A decoded request, and the id of its response."""

    inbound: ClientRequest
    response_id: str


class Accepted(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="llm-runtime:accepted"):
    """The request was accepted."""

    response_id: str


class Events(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="llm-runtime:events"):
    """Events of a response. ``sequence_number`` is the number of the last of them: its position in the run log."""

    response_id: str
    sequence_number: int
    events: tuple[Event, ...]


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="error"):
    """The request in the frame with this ``event_id`` is refused. Without an id, the server also refuses all further
    requests.
    """

    event_id: str | None = None
    status: int = 400
    error: JsonObject = {}
    failure: Failure | None = None

    def reason(self) -> Failure:
        """Return the reason as a failure."""
        return self.failure or failure_in(self.status, self.error)

    @property
    def code(self) -> str:
        """Return the server's error code."""
        return str(self.error.get("code"))


class Cancelled(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="llm-runtime:cancelled"):
    """The reply to ``response.cancel``."""

    response_id: str


ServerFrame: TypeAlias = Accepted | Events | Refused | Cancelled


class Greeting(msgspec.Struct, frozen=True, kw_only=True):
    """The first frame to a client: the version of the daemon, its routes by name, and the limit of responses per
    WebSocket.
    """

    version: str
    routes: dict[str, JsonObject]
    responses: int
    """The most responses in progress on one WebSocket."""
    max_bytes: int
    """The largest frame that the server accepts, in bytes."""


def encode_create(request: bytes, response_id: str, lane: str, *, stream: bool) -> bytes:
    """Return the frame of a request that is already encoded as JSON."""
    frame = {"type": CREATE, "response_id": response_id, "stream_id": lane, "event_id": response_id, "stream": stream}
    return encode_json({**frame, "request": msgspec.Raw(request)})


def encode_resume(response_id: str, starting_after: int, lane: str) -> bytes:
    """Return the frame that asks for the events after the event with the number ``starting_after``."""
    return encode_json(
        {
            "type": "response.resume",
            "response_id": response_id,
            "starting_after": starting_after,
            "stream_id": lane,
            "event_id": response_id,
        }
    )


def encode_cancel(response_id: str, lane: str) -> bytes:
    """Return the frame that cancels the response on a lane. It names the lane, because the server may not know the id
    yet.
    """
    return encode_json({"type": "response.cancel", "stream_id": lane, "event_id": response_id})


def decode_request(data: bytes | str, caller: str) -> AnyRequest:
    """Decode a request of ``caller`` that is not in a frame. Raises `BadRequestError`."""
    return _admitted(typed(json_body(data), AnyRequest), caller)  # type: ignore[arg-type]


def decode_create(data: bytes | str, caller: str) -> NativeRequest:
    """Decode the request of ``caller`` in a frame. Raises `BadRequestError` naming the field at fault."""
    frame = typed(json_body(data), CreateFrame)
    inbound = ClientRequest(_admitted(frame.request, caller), stream=frame.stream, form=FORM)
    return NativeRequest(inbound=inbound, response_id=frame.response_id)


def _admitted(request: AnyRequest, caller: str) -> AnyRequest:
    """Return the request with the name of its caller and without forwarded header fields. A client may set neither."""
    if not _ID.fullmatch(request.request_id):
        raise bad_request(
            "request.request_id", "request.request_id must be 1 to 128 characters: letters, digits, . _ and -"
        )
    parameters = msgspec.structs.replace(request.parameters, wire=None, headers={})
    return msgspec.structs.replace(request, caller=caller, parameters=parameters, forwarded={}, timestamp=time.time())


_FRAMES: JsonDecoder[ServerFrame] = JsonDecoder(ServerFrame, limits=LIMITS._replace(values=10_000_000, keys=10_000_000))  # type: ignore[arg-type]


def decode_frame(data: bytes | str) -> ServerFrame:
    """Decode a frame of the daemon. Raises `ProtocolError`."""
    try:
        return _FRAMES.decode(data)
    except WireError as exc:
        raise ProtocolError(f"the daemon's message cannot be decoded; its version may differ: {exc}") from None


_KINDS = {rule.code: kind for kind, rule in reversed(RULES.items())} | {
    "invalid_api_key": FailureKind.AUTH,
    "connection_limit": FailureKind.QUEUE_FULL,
}
"""Failure kinds by the codes of error objects. If several kinds share a code, the first."""


def failure_in(status: int, error: JsonObject) -> Failure:
    """Return the failure for an error object of the server."""
    kind = _KINDS.get(str(error.get("code"))) or kind_of_status(status)
    message, param = error.get("message"), error.get("param")
    wait = str((error.get("headers") or {}).get("retry-after", ""))
    return Failure(
        kind=kind,
        message=message if isinstance(message, str) else f"the daemon refused the request with HTTP {status}",
        param=param if isinstance(param, str) else None,
        retry_after=float(wait) if wait.isdecimal() else None,
    )


def encode_refused(failure: Failure, event_id: str | None) -> bytes:
    """Return the error frame for a request that was refused, or given up while it waited."""
    rule = failure.rule
    error = {"message": failure.message, "code": rule.code, "type": rule.type, "param": failure.param}
    return encode_json(Refused(event_id=event_id, status=rule.status, error=error, failure=failure))


@final
class NativeEncoder:
    """Encodes one response; see `llm_protocol.dialect.ResponseEncoder`. The number of an event is its position in the
    log. With ``starting_after``, the events up to that number are left out.
    """

    def __init__(self, response_id: str, starting_after: int = -1) -> None:
        self._id = response_id
        self._after = starting_after
        self._number = -1

    def start(self) -> list[Frame]:
        """Return the `Accepted` frame."""
        return [Frame(None, encode_json(Accepted(response_id=self._id)))]

    def encode(self, events: Iterable[Event]) -> list[Frame]:
        """Return one frame with all new events; no frame if there are none."""
        fresh = [event for event, _ in merged(self._unseen(events))]
        if not fresh:
            return []
        frame = Events(response_id=self._id, sequence_number=self._number, events=tuple(fresh))
        return [Frame(None, encode_json(frame))]

    def _unseen(self, events: Iterable[Event]) -> Iterator[Event]:
        for event in events:
            before, count = self._number, count_pieces(event)
            self._number += count
            seen = self._after - before
            if seen >= count:
                continue
            if seen > 0:
                assert isinstance(event, ANY_DELTAS), "only deltas may be joined"
                event = cut(event, seen)[1]
            yield without_lengths(event) if isinstance(event, ANY_DELTAS) else event


def last_number(events: Sequence[Event]) -> int:
    """Return the number of the last of a log's events."""
    return sum(map(count_pieces, events)) - 1
