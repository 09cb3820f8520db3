"""Read the frames of a WebSocket client (RFC 6455). Pure: it is given bytes, and returns messages.

wsproto's frame decoder does the work: this module adds the limits, which wsproto leaves to its user
(python-hyper/wsproto#86). Only the decoder of wsproto is used, because its connection object keeps the handshake, with
a connection object of h11: more memory than everything else that an idle WebSocket needs.
"""

from __future__ import annotations

import struct
from typing import final

from wsproto.frame_protocol import CloseReason, Frame, FrameDecoder, MessageDecoder, Opcode, ParseFailed

from llm_runtime.server.bodies import BodyBudget, HeldBodies
from llm_runtime.server.http_error import HttpError
from llm_runtime.server.limits import FRAMES_AT_ONCE, MESSAGE_FRAGMENTS

FAULTS = frozenset((1002, 1003, 1007, 1008, 1009, 1013))
"""Close codes for errors of the peer, and for messages that there is no room for."""

_NO_CODE = 1005
"""The code of a close frame without a code."""

_PIECE_CHARACTERS = 16 * 1024
"""Pieces of a message that are shorter than this are joined when they arrive, because a list of tiny strings takes more
memory than their text.
"""

_ABNORMAL = 1006
"""The code of a connection that broke without a close frame."""

_LAST_STANDARD_CODE = 2999
_CODES = range(1000, 5000)
_LOCAL_CODES = frozenset((1005, 1006, 1015))
"""Codes that describe the end of a connection, and must not be sent."""


@final
class Hangup(Exception):  # noqa: N818  (it says what happened, as trio's EndOfChannel does)
    """The connection has ended or is about to end. ``code`` is the close code, 1006 if there was none. ``payload`` is
    that of the peer's close frame, if the peer has sent one.
    """

    def __init__(self, code: int = _ABNORMAL, payload: bytes | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.payload = payload

    @property
    def is_abnormal(self) -> bool:
        """Whether the connection broke without a close frame."""
        return self.code == _ABNORMAL


@final
class MessageReader:
    """Joins frames to messages of at most ``max_bytes``. The bytes of a message count towards the budget ``bodies``
    until `next_message`, which has returned the message, is called again.
    """

    __slots__ = ("_arriving", "_decoder", "_fragments", "_joiner", "_max_bytes", "_pieces", "_size", "is_busy", "ping")

    def __init__(self, max_bytes: int, bodies: BodyBudget) -> None:
        self._max_bytes = max_bytes
        self._arriving = HeldBodies(bodies)
        self._decoder = FrameDecoder(client=False)
        self._joiner = MessageDecoder()
        self._pieces: list[str | bytes] = []
        self._size = self._fragments = 0
        self.is_busy = False
        """Whether `next_message` has stopped after `FRAMES_AT_ONCE` frames, although more may have arrived."""
        self.ping: bytes | None = None
        """The payload of the latest ping that was not answered. Only this one needs a pong (RFC 6455, 5.5.3)."""

    def feed(self, data: bytes) -> None:
        """Take bytes from the client."""
        self._decoder.receive_bytes(data)

    def next_message(self) -> str | bytes | None:
        """Return the next message; ``None`` if more bytes are needed, or if `is_busy`: then call it again, after other
        connections have had their turn. Raises `Hangup` at a close frame and at an error of the client; do not call it
        again then.
        """
        self.is_busy = False
        if not self._pieces:
            self._arriving.release_all()
        try:
            for _ in range(FRAMES_AT_ONCE):
                if (frame := self._decoder.process_buffer()) is None:
                    break
                if (message := self._read(frame)) is not None:
                    return message
            else:
                self.is_busy = True
        except ParseFailed as exc:
            raise Hangup(int(exc.code)) from None
        header = self._decoder.header
        if header is not None and header.payload_len > self._max_bytes:
            raise Hangup(CloseReason.MESSAGE_TOO_BIG)  # before its bytes arrive
        return None

    def _read(self, frame: Frame) -> str | bytes | None:
        """Return the message that ``frame`` completes. ``frame`` may be the part of a frame that has arrived."""
        assert isinstance(frame.payload, bytes), "the payload of a frame must be bytes"
        if frame.opcode is Opcode.CLOSE:
            raise Hangup(_close_code(frame.payload), frame.payload)
        if frame.opcode is Opcode.PING:
            self.ping = frame.payload
        elif frame.opcode is not Opcode.PONG:
            data = self._joiner.process_frame(frame)
            assert isinstance(data.payload, str | bytes)
            self._append(data.payload)
            if not data.message_finished:
                self._fragments += frame.frame_finished
            self._count(len(frame.payload), is_last=data.message_finished)
            if data.message_finished:
                pieces = self._pieces
                self._forget()
                return "".join(pieces) if isinstance(data.payload, str) else b"".join(pieces)  # type: ignore[arg-type]
        return None

    def _append(self, piece: str | bytes) -> None:
        if self._pieces and len(self._pieces[-1]) < _PIECE_CHARACTERS:
            self._pieces[-1] += piece  # type: ignore[operator]
        else:
            self._pieces.append(piece)

    def _count(self, size: int, *, is_last: bool) -> None:
        """Count ``size`` more bytes of the message. Raises `Hangup` if it exceeds a limit."""
        self._size += size
        if self._fragments > MESSAGE_FRAGMENTS:
            raise Hangup(CloseReason.POLICY_VIOLATION)
        if not is_last:
            try:
                self._arriving.hold(size)
            except HttpError:
                raise Hangup(CloseReason.TRY_AGAIN_LATER) from None
        if self._size > self._max_bytes:
            raise Hangup(CloseReason.MESSAGE_TOO_BIG)

    def release(self) -> None:
        """Forget the incomplete message. Its bytes, and those of the latest message, no longer count."""
        self._arriving.release_all()
        self._forget()

    def _forget(self) -> None:
        self._pieces = []
        self._size = self._fragments = 0


def _close_code(payload: bytes) -> int:
    """The code in a close frame (RFC 6455, 7.4). Raises `Hangup` if it is invalid."""
    if not payload:
        return _NO_CODE
    if len(payload) == 1:
        raise Hangup(CloseReason.PROTOCOL_ERROR)
    (code,) = struct.unpack("!H", payload[:2])
    is_known = code > _LAST_STANDARD_CODE or code in CloseReason._value2member_map_
    if code not in _CODES or code in _LOCAL_CODES or not is_known:
        raise Hangup(CloseReason.PROTOCOL_ERROR)
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        raise Hangup(CloseReason.INVALID_FRAME_PAYLOAD_DATA) from None
    return int(code)
