"""The questions between workers, and their answers. One connection per question."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, TypeAlias

import msgspec
import trio

LONGEST_FRAME: Final = 256 * 1024 * 1024
"""The longest frame, in bytes. The longest frames have a whole request or a whole log."""

_LENGTH_BYTES: Final = 4


class WorkerView(StrEnum):
    """The data of a worker that other workers can ask for."""

    METRICS = "metrics"
    STATISTICS = "statistics"
    RECENT = "recent"
    TREE = "tree"


class FollowQuestion(msgspec.Struct, frozen=True, tag=True):
    """Follow the caller's response. The answers are a `FoundAnswer`, and then a `PieceAnswer` for each further part;
    or one `QueuedAnswer`; or one `NothingAnswer`. A `BrokenAnswer` may come instead of any of these, or at the end.
    """

    id: str
    caller: str


class CancelQuestion(msgspec.Struct, frozen=True, tag=True):
    """Cancel the caller's response. The answer is a `CountAnswer`."""

    id: str
    caller: str


class DropQuestion(msgspec.Struct, frozen=True, tag=True):
    """Delete the caller's response. The answer is a `CountAnswer`."""

    id: str
    caller: str


class IssuedQuestion(msgspec.Struct, frozen=True, tag=True):
    """Which of these vendor ids has the caller received? The answer is an `IdsAnswer`."""

    caller: str
    ids: list[str]


class ForgetQuestion(msgspec.Struct, frozen=True, tag=True):
    """See `RequestEngine.forget`. The answer is a `CountAnswer`."""

    conversation: str | None
    caller: str


class LookQuestion(msgspec.Struct, frozen=True, tag=True):
    """Return a view. The answer is a `SeenAnswer`."""

    view: WorkerView
    caller: str | None = None


class WrongKeyNotice(msgspec.Struct, frozen=True, tag=True):
    """A client has sent a wrong key. There is no answer."""

    peer: str


WorkerQuestion: TypeAlias = (
    FollowQuestion | CancelQuestion | DropQuestion | IssuedQuestion | ForgetQuestion | LookQuestion | WrongKeyNotice
)


class FoundAnswer(msgspec.Struct, frozen=True, tag=True):
    """The request of a response, and the current content of its run log, packed."""

    head: bytes
    events: list[bytes]


class PieceAnswer(msgspec.Struct, frozen=True, tag=True):
    """More of the log, packed."""

    events: list[bytes]


class QueuedAnswer(msgspec.Struct, frozen=True, tag=True):
    """The response waits for its turn. ``head`` is the packed request."""

    head: bytes


class NothingAnswer(msgspec.Struct, frozen=True, tag=True):
    """The worker has no such response."""


class BrokenAnswer(msgspec.Struct, frozen=True, tag=True):
    """The response exists, but it, or its next part, cannot be packed."""


class CountAnswer(msgspec.Struct, frozen=True, tag=True):
    """The number of affected responses or conversations."""

    count: int


class IdsAnswer(msgspec.Struct, frozen=True, tag=True):
    """The ids in the question that the caller has received."""

    ids: list[str]


class SeenAnswer(msgspec.Struct, frozen=True, tag=True):
    """The reply of a worker: its view, encoded as the endpoint of that view encodes it."""

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
        raise ValueError(
            f"a frame of {len(body)} bytes is longer than {LONGEST_FRAME - _LENGTH_BYTES} bytes, the most allowed"
        )
    await stream.send_all(len(body).to_bytes(_LENGTH_BYTES, "big") + body)


class FrameReader:
    """Reads the frames that arrive over ``stream``."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    async def next(self) -> bytes | None:
        """Return the next frame; ``None`` when the other side has disconnected, or sends bytes that are no frame. If
        cancelled, nothing is lost.
        """
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
        """Read until the buffer has ``count`` bytes. Return whether it has."""
        while len(self._buffer) < count:
            try:
                data = await self._stream.receive_some()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return False
            if not data:
                return False
            self._buffer += data
        return True
