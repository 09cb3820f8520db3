"""Convert a stored response to bytes and back: its request and options (the head), and pieces of its log. The store
keeps responses in this form, and workers exchange them in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from llm_actors.run import Run
from llm_protocol.dialect import ClientRequest
from llm_protocol.events import Event
from llm_protocol.requests import AnyRequest
from llm_protocol.wires.responses import Create, ResponseOptions
from llm_runtime.server.response_store import StoredResponse

EVENTS_AT_ONCE: Final = 1_000
"""The most events that are packed or unpacked in one call. Nothing else in the process runs during that call, not
even another thread.
"""


class _Head(msgspec.Struct, array_like=True):
    """The request of a stored response and its options. ``policy`` is JSON."""

    request: AnyRequest
    options: ResponseOptions
    include_usage: bool
    policy: bytes | None
    form: str
    asked_bytes: int


_HEADS = msgspec.msgpack.Decoder(_Head)
_EVENTS = msgspec.msgpack.Decoder(list[Event])
_ENCODER = msgspec.msgpack.Encoder()


class PackedRequest(NamedTuple):
    """The request of a stored response and its options, unpacked."""

    inbound: ClientRequest
    options: ResponseOptions
    asked_bytes: int

    def response(self, run: Run) -> StoredResponse:
        """Return the stored response whose events are in the log of ``run``."""
        return StoredResponse(
            run, self.inbound, self.options, Create(self.inbound, self.options).input, self.asked_bytes
        )


def pack_head(inbound: ClientRequest, options: ResponseOptions, asked_bytes: int) -> bytes:
    """Pack the request and its options. With these and the log a response can be restored. Raises TypeError,
    ValueError, OverflowError or RecursionError for a value that msgspec cannot encode: a lone surrogate, or a number
    beyond 64 bits.
    """
    policy = None if inbound.policy is None else bytes(inbound.policy)
    request = msgspec.structs.replace(inbound.request, forwarded={})  # without the header fields of the client
    return _ENCODER.encode(_Head(request, options, inbound.include_usage, policy, inbound.form, asked_bytes))


def unpack_head(data: bytes) -> PackedRequest:
    """Undo `pack_head`. Raises `msgspec.MsgspecError`."""
    head = _HEADS.decode(data)
    policy = None if head.policy is None else msgspec.Raw(head.policy)
    return PackedRequest(
        ClientRequest(head.request, True, head.include_usage, policy, form=head.form), head.options, head.asked_bytes
    )


def pack_events(events: Sequence[Event]) -> bytes:
    """Pack events of a log into one piece. Raises as `pack_head` does."""
    return _ENCODER.encode(events)


def unpack_events(data: bytes) -> list[Event]:
    """Undo `pack_events`. Raises `msgspec.MsgspecError`."""
    return _EVENTS.decode(data)


def pack_log(events: Sequence[Event]) -> list[bytes]:
    """Pack any number of events into pieces. Raises as `pack_head` does."""
    return [pack_events(events[at : at + EVENTS_AT_ONCE]) for at in range(0, len(events), EVENTS_AT_ONCE)]


def unpack_log(pieces: Sequence[bytes]) -> list[Event]:
    """Undo `pack_log`. Raises `msgspec.MsgspecError`."""
    return [event for piece in pieces for event in unpack_events(piece)]
