"""A response as bytes: what was asked and how, and pieces of its log. The store keeps it so, and workers pass it on."""

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
"""How many events are packed or unpacked in one call: nothing else runs meanwhile, not even another thread."""


class _Head(msgspec.Struct, array_like=True):
    """What was asked and how, as it is stored. ``policy`` is JSON."""

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
    """What was asked and how."""

    inbound: ClientRequest
    options: ResponseOptions
    asked_bytes: int

    def response(self, run: Run) -> StoredResponse:
        """The response to it that ``run`` makes."""
        return StoredResponse(
            run, self.inbound, self.options, Create(self.inbound, self.options).input, self.asked_bytes
        )


def pack_head(inbound: ClientRequest, options: ResponseOptions, asked_bytes: int) -> bytes:
    """What a response needs to be read again, beside its log. Raises what msgspec does for what has no bytes: a lone
    surrogate, a number beyond 64 bits.
    """
    policy = None if inbound.policy is None else bytes(inbound.policy)
    request = msgspec.structs.replace(inbound.request, forwarded={})  # header fields of its client
    return _ENCODER.encode(_Head(request, options, inbound.include_usage, policy, inbound.form, asked_bytes))


def unpack_head(data: bytes) -> PackedRequest:
    """The same again. Raises `msgspec.MsgspecError`."""
    head = _HEADS.decode(data)
    policy = None if head.policy is None else msgspec.Raw(head.policy)
    return PackedRequest(
        ClientRequest(head.request, True, head.include_usage, policy, form=head.form), head.options, head.asked_bytes
    )


def pack_events(events: Sequence[Event]) -> bytes:
    """A piece of a log. Raises as `pack_head` does."""
    return _ENCODER.encode(events)


def unpack_events(data: bytes) -> list[Event]:
    """The same again. Raises `msgspec.MsgspecError`."""
    return _EVENTS.decode(data)


def pack_log(events: Sequence[Event]) -> list[bytes]:
    """A piece of a log of any length. Raises as `pack_head` does."""
    return [pack_events(events[at : at + EVENTS_AT_ONCE]) for at in range(0, len(events), EVENTS_AT_ONCE)]


def unpack_log(pieces: Sequence[bytes]) -> list[Event]:
    """The same again. Raises `msgspec.MsgspecError`."""
    return [event for piece in pieces for event in unpack_events(piece)]
