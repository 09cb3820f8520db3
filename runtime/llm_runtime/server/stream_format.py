"""How the frames of a streamed answer stand in an HTTP body: as server-sent events, or as one JSON array."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, final

from llm_protocol.codec.sse import encode_sse
from llm_protocol.dialect import Frame, Inbound


class StreamFormat(Protocol):
    """Turns frames into bytes. ``ping`` may stand between any two pieces and means nothing."""

    content_type: str
    ping: bytes

    def encode(self, frames: Iterable[Frame]) -> bytes:
        """The bytes of the next frames."""
        ...

    def end(self) -> bytes:
        """What comes after the last frame."""
        ...


@final
class Sse:
    """Server-sent events."""

    content_type = "text/event-stream; charset=utf-8"
    ping = b": ping\n\n"
    encode = staticmethod(encode_sse)

    def end(self) -> bytes:
        """Nothing."""
        return b""


@final
class JsonArray:
    """Members of one array, as Gemini's clients read them that did not ask for ``alt=sse``."""

    content_type = "application/json"
    ping = b"\n"

    def __init__(self) -> None:
        from llm_protocol.codec.json_array import JsonArrayEncoder

        encoder = JsonArrayEncoder()
        self.encode = encoder.encode
        self.end = encoder.end


def stream_format_for(inbound: Inbound) -> StreamFormat:
    """What the client reads."""
    return JsonArray() if inbound.json_array else Sse()
