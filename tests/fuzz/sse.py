"""The SSE decoder, against the WHATWG rules written down once more for a body that is whole."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fuzz.steps import pieces, step
from fuzz.target import Target
from llm_protocol.codec.json import WireError
from llm_protocol.codec.sse import ServerSentEvent, SseDecoder

SMALL = 200
"""A limit that inputs reach."""


def check(data: bytes) -> None:
    """The same events as the rules give, for any split; nothing kept beyond a limit."""
    at, body = (data or b"\0")[0], data[1:]
    whole = decoded([body])
    assert whole == by_the_rules(body)
    for cut in pieces(body, at):
        assert decoded(cut) == whole
        within_limit(cut)


def decoded(parts: Sequence[bytes]) -> list[ServerSentEvent]:
    decoder = SseDecoder()
    return [event for part in parts for event in step(decoder.feed, part)] + decoder.end()


def within_limit(parts: Sequence[bytes]) -> None:
    decoder = SseDecoder(SMALL)
    try:
        for part in parts:
            events = decoder.feed(part)
            assert all(len(event.data) <= SMALL for event in events)
            assert len(decoder._tail) + sum(map(len, decoder._data)) <= 2 * SMALL
    except WireError:
        assert not decoder._tail
        assert not decoder._data


def by_the_rules(body: bytes) -> list[ServerSentEvent]:
    """What the standard says, and that a last event needs no blank line."""
    lines = re.split(rb"\r\n|\r|\n", body.removeprefix(b"\xef\xbb\xbf"))
    # A last line without an end may be half a field, and is not taken.
    found: list[ServerSentEvent] = []
    name, data = "", list[bytes]()
    for line in [*lines[:-1], b""]:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not line:
            if data and data != [b""]:
                found.append(ServerSentEvent(name, b"\n".join(data).decode("utf-8", "replace")))
            name, data = "", []
        elif field == b"data":
            data.append(value)
        elif field == b"event":
            name = value.decode("utf-8", "replace")
    return found


def seeds() -> list[bytes]:
    return [
        b"\x80event: a\ndata: 1\n\ndata: 2\r\ndata: 3\r\n\r\n: ping\n\nid: 1\nretry: 5\ndata\r\r",
        b"\x10\xef\xbb\xbfdata: x\n\n<html>no</html>\n\ndata:\xe2\x80\xa8\x85\x0b\x0c\x1c\0\n\n",
        b'\xf0data: {"a": "\xf0\x9f\x98\x80"}\n\n\n\n\ndata: [DONE]\n',
    ]


SSE = Target("sse", check, seeds, prefix=1)
