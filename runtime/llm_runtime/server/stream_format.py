"""How the frames of a streamed answer stand in an HTTP body: as server-sent events, or as one JSON array."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, final

from llm_protocol.codec.sse import encode_sse
from llm_protocol.dialect import Frame, Inbound, ServerDialect


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


COMMENT = b": ping\n\n"
"""What the standard has for it; OpenAI's and Cohere's clients skip it."""

KEEP_ALIVES = {
    # Clients of Anthropic know this event, and some count events, not bytes, to tell a slow answer from a dead one.
    "anthropic": b'event: ping\ndata: {"type": "ping"}\n\n',
    # google-genai takes a comment for JSON and gives up, and LiteLLM gives an empty answer. Both skip a blank line.
    "gemini": b"\n",
}
"""Where a wire's own clients want something else, by the name of the dialect. `tests/clients/test_keep_alives.py`"""


@final
class Sse:
    """Server-sent events."""

    content_type = "text/event-stream; charset=utf-8"
    encode = staticmethod(encode_sse)

    def __init__(self, ping: bytes = COMMENT) -> None:
        self.ping = ping

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


def stream_format_for(dialect: ServerDialect, inbound: Inbound) -> StreamFormat:
    """What the client reads."""
    return JsonArray() if inbound.json_array else Sse(KEEP_ALIVES.get(dialect.name, COMMENT))
