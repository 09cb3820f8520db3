"""Makes the plan of how a response is sent, with or without a fault: bytes to send, seconds to wait, and an end. No
I/O.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import NamedTuple, TypeAlias

from llm_protocol.http1 import LAST_CHUNK, encode_chunk
from llm_runtime.fake.script import Fault, ScriptRule
from llm_runtime.server.http1 import encode_head

DEFAULT_EVENTS = 3
"""The number of events before a fault, if the rule does not set it."""

BOMB_PIECE = 64 * 1024
LINE_BYTES = 1024**3
"""The length of the "endless" line, in bytes, if the client does not close the connection first."""
GZIP_BYTES = 300 * 1024 * 1024
"""The size of the compressed bomb when it is unpacked, in bytes."""
BOMB_KEYS = 1_000_000
BOMB_DEPTH = 100_000

GARBAGE = b"\x00\xff<html>502 Bad Gateway</html>{]"


class DeliveryEnd(Enum):
    """What happens to the connection after the response."""

    KEEP = "keep"
    CLOSE = "close"
    RESET = "reset"
    STALL = "stall"


Step: TypeAlias = bytes | float | DeliveryEnd
"""One step of a plan: bytes to send in one write, seconds to wait, or the end, which is the last step."""

_BOMBS = frozenset((Fault.BOMB_LINE, Fault.BOMB_GZIP, Fault.BOMB_KEYS, Fault.BOMB_DEPTH))
_ENDS = {Fault.CLOSE: DeliveryEnd.CLOSE, Fault.RESET: DeliveryEnd.RESET, Fault.STALL: DeliveryEnd.STALL}


class DeliveryPlan(NamedTuple):
    """A response without its faults. The last ``markers`` of the ``pieces`` mark the end. ``event`` is the format of an
    event, with ``%b`` in place of its data. In a streamed response, `Fault.ERROR` is already among the pieces, because
    only the encoder can encode it.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    pieces: tuple[bytes, ...]
    streamed: bool = False
    markers: int = 1
    event: bytes = b"%b"


def deliver(answer: DeliveryPlan, rule: ScriptRule, *, chunked: bool) -> Iterator[Step]:
    """Return the plan for ``answer``, with the waits and the fault of ``rule``. Without ``chunked`` (HTTP/1.0), a
    streamed body ends when the connection is closed.
    """
    if rule.delay_head_s:
        yield rule.delay_head_s
    if rule.after_bytes is None:
        yield from _framed(answer, rule, rule.fault, chunked=chunked)
    else:
        end = _ENDS.get(rule.fault, DeliveryEnd.CLOSE) if rule.fault else DeliveryEnd.CLOSE
        yield from _cut(_framed(answer, rule, None, chunked=chunked), rule.after_bytes, end)


def _framed(answer: DeliveryPlan, rule: ScriptRule, fault: Fault | None, *, chunked: bool) -> Iterator[Step]:
    body, end = _broken(answer, fault, rule.after_events)
    length = None
    if not (answer.streamed or fault in _BOMBS):
        body = tuple(body)
        # For HTTP, a truncated response announces its full length. One with other faults is complete.
        length = sum(map(len, body if end is DeliveryEnd.KEEP else answer.pieces))
    bare = length is None and not chunked
    headers = (*answer.headers, *rule.headers.items())
    if fault is Fault.BOMB_GZIP:
        headers = (*headers, ("content-encoding", "gzip"))
    yield encode_head(answer.status, headers, close=bare, length=length)
    in_chunks = length is None and chunked
    for step in _paced(body, rule):
        yield encode_chunk(step) if in_chunks and isinstance(step, bytes) else step
    if in_chunks and end is DeliveryEnd.KEEP:
        yield LAST_CHUNK
    yield DeliveryEnd.CLOSE if bare and end is DeliveryEnd.KEEP else end


def _broken(answer: DeliveryPlan, fault: Fault | None, after: int | None) -> tuple[Iterable[bytes], DeliveryEnd]:
    """Return the pieces of the body with the fault, and how the connection ends."""
    pieces = answer.pieces if answer.streamed else _halves(answer.pieces)
    before_end = max(0, len(pieces) - answer.markers)
    kept = pieces[: min(DEFAULT_EVENTS, before_end) if after is None else after]
    match fault:
        case None | Fault.ERROR:
            return pieces, DeliveryEnd.KEEP
        case Fault.NO_END:
            return pieces[:before_end], DeliveryEnd.KEEP
        case Fault.TRUNCATE:
            return kept, DeliveryEnd.KEEP
        case Fault.GARBAGE:
            return (*kept, answer.event % GARBAGE), DeliveryEnd.KEEP
        case Fault.BOMB_GZIP:
            return _gzip_bomb(), DeliveryEnd.KEEP
        case Fault.BOMB_LINE | Fault.BOMB_KEYS | Fault.BOMB_DEPTH:
            return _bomb(fault, kept if answer.streamed else (), answer.event), DeliveryEnd.KEEP
        case _:
            return kept, _ENDS[fault]


def _halves(pieces: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Return a complete body as two pieces, because it has no events and a fault in the middle must be possible."""
    body = b"".join(pieces)
    return body[: len(body) // 2], body[len(body) // 2 :]


def _paced(pieces: Iterable[bytes], rule: ScriptRule) -> Iterator[bytes | float]:
    delay = rule.delay_first_s
    for piece in pieces:
        if not piece:
            continue  # an empty chunk would mark the end
        if delay:
            yield delay
        delay = rule.delay_event_s
        step = rule.split_bytes or len(piece)
        for at in range(0, len(piece), step):
            yield piece[at : at + step]


def _cut(steps: Iterable[Step], room: int, end: DeliveryEnd) -> Iterator[Step]:
    """Yield the first ``room`` bytes of the plan, followed by ``end``."""
    for step in steps:
        if isinstance(step, bytes):
            if len(step) >= room:
                if room:
                    yield step[:room]
                yield end
                return
            room -= len(step)
        yield step


# ---------------------------------------------------------------- bombs


def _bomb(fault: Fault, before: Iterable[bytes], event: bytes) -> Iterator[bytes]:
    yield from before
    opening, _, closing = event.partition(b"%b")
    yield opening
    match fault:
        case Fault.BOMB_KEYS:
            yield from _keys()
        case Fault.BOMB_DEPTH:
            yield b'{"choices":' + b"[" * BOMB_DEPTH + b"]" * BOMB_DEPTH + b"}"
        case _:
            yield b'{"choices":"'
            for _ in range(LINE_BYTES // BOMB_PIECE):
                yield b"a" * BOMB_PIECE
            yield b'"}'
    yield closing


def _keys() -> Iterator[bytes]:
    yield b'{"choices":{"":0'
    for first in range(0, BOMB_KEYS, 1000):
        yield b"".join(b',"k%d":0' % number for number in range(first, first + 1000))
    yield b"}}"


def _gzip_bomb() -> Iterator[bytes]:
    squeezed = zlib.compressobj(level=1, wbits=31)
    yield squeezed.compress(b"data: ")
    zeros = bytes(1024 * 1024)
    for _ in range(GZIP_BYTES // len(zeros)):
        yield squeezed.compress(zeros)
    yield squeezed.flush()
