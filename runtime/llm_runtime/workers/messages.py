"""What workers ask of each other, and the answers. One connection per question."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, TypeAlias

import msgspec
import trio

LONGEST_FRAME: Final = 256 * 1024 * 1024
"""Bytes. The longest has what was asked for one response, or a whole log."""

_LENGTH_BYTES: Final = 4


class WorkerView(StrEnum):
    """What of a worker can be looked at."""

    METRICS = "metrics"
    STATISTICS = "statistics"
    RECENT = "recent"
    TREE = "tree"


class FollowQuestion(msgspec.Struct, frozen=True, tag=True):
    """Send the caller's response: a `FoundAnswer`, and a `PieceAnswer` again and again to its end; or a `QueuedAnswer`,
    or a `NothingAnswer`. Instead of any of them, and at the end, there may be a `BrokenAnswer`.
    """

    id: str
    caller: str


class CancelQuestion(msgspec.Struct, frozen=True, tag=True):
    """Cancel the caller's response. The answer is `CountAnswer`."""

    id: str
    caller: str


class DropQuestion(msgspec.Struct, frozen=True, tag=True):
    """Delete the caller's response. The answer is `CountAnswer`."""

    id: str
    caller: str


class IssuedQuestion(msgspec.Struct, frozen=True, tag=True):
    """Which of these vendor ids has the caller received? The answer is `IdsAnswer`."""

    caller: str
    ids: list[str]


class ForgetQuestion(msgspec.Struct, frozen=True, tag=True):
    """See `RequestEngine.forget`. The answer is `CountAnswer`."""

    conversation: str | None
    caller: str


class LookQuestion(msgspec.Struct, frozen=True, tag=True):
    """Show a view. The answer is `SeenAnswer`."""

    view: WorkerView
    caller: str | None = None


class WrongKeyNotice(msgspec.Struct, frozen=True, tag=True):
    """Somebody has shown a wrong key. There is no answer."""

    peer: str


WorkerQuestion: TypeAlias = (
    FollowQuestion | CancelQuestion | DropQuestion | IssuedQuestion | ForgetQuestion | LookQuestion | WrongKeyNotice
)


class FoundAnswer(msgspec.Struct, frozen=True, tag=True):
    """What was asked for a response, and its log so far, packed."""

    head: bytes
    events: list[bytes]


class PieceAnswer(msgspec.Struct, frozen=True, tag=True):
    """More of its log, packed."""

    events: list[bytes]


class QueuedAnswer(msgspec.Struct, frozen=True, tag=True):
    """The response waits for its turn. What was asked for it, packed."""

    head: bytes


class NothingAnswer(msgspec.Struct, frozen=True, tag=True):
    """There is no such response here."""


class BrokenAnswer(msgspec.Struct, frozen=True, tag=True):
    """There is one, and it, or more of it, cannot be packed."""


class CountAnswer(msgspec.Struct, frozen=True, tag=True):
    """How many there were."""

    count: int


class IdsAnswer(msgspec.Struct, frozen=True, tag=True):
    """Some of the ids in the question."""

    ids: list[str]


class SeenAnswer(msgspec.Struct, frozen=True, tag=True):
    """A view, as its endpoint writes it."""

    body: bytes


WorkerAnswer: TypeAlias = (
    FoundAnswer | PieceAnswer | QueuedAnswer | NothingAnswer | BrokenAnswer | CountAnswer | IdsAnswer | SeenAnswer
)

QUESTIONS: msgspec.msgpack.Decoder[WorkerQuestion] = msgspec.msgpack.Decoder(WorkerQuestion)
ANSWERS: msgspec.msgpack.Decoder[WorkerAnswer] = msgspec.msgpack.Decoder(WorkerAnswer)

_ENCODER = msgspec.msgpack.Encoder()


async def send(stream: trio.abc.SendStream, message: WorkerQuestion | WorkerAnswer) -> None:
    """Send one frame. Raises `trio.BrokenResourceError`, and `ValueError` for one that is too long."""
    body = _ENCODER.encode(message)
    if len(body) > LONGEST_FRAME - _LENGTH_BYTES:
        raise ValueError(f"a frame of {len(body)} bytes is too long")
    await stream.send_all(len(body).to_bytes(_LENGTH_BYTES, "big") + body)


class FrameReader:
    """The frames that come over ``stream``."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    async def next(self) -> bytes | None:
        """The next frame; ``None`` when the other side has gone, or sends none. If cancelled, nothing is lost."""
        if not await self._fill(_LENGTH_BYTES):
            return None
        end = _LENGTH_BYTES + int.from_bytes(self._buffer[:_LENGTH_BYTES], "big")
        if end > LONGEST_FRAME or not await self._fill(end):
            return None
        with memoryview(self._buffer) as buffer, buffer[_LENGTH_BYTES:end] as frame:
            taken = bytes(frame)
        del self._buffer[:end]
        return taken

    async def _fill(self, count: int) -> bool:
        """Have so many bytes in the buffer."""
        while len(self._buffer) < count:
            try:
                data = await self._stream.receive_some()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return False
            if not data:
                return False
            self._buffer += data
        return True
