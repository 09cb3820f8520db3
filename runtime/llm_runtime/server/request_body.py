"""A request's body that is passed on piece by piece. Only a bounded part of it is in memory, however large it is."""

from __future__ import annotations

from typing import final

import trio

from llm_runtime.server.http1 import CONTINUE, RequestParser
from llm_runtime.server.http_error import HttpError
from llm_runtime.server.limits import BODY_SECONDS, MIN_RATE, PASSTHROUGH_BYTES, WRITE_STALL_SECONDS
from llm_runtime.server.receiver import Receiver, Take
from llm_runtime.server.socket import Socket
from llm_runtime.server.subscription import WakeupEvent


@final
class StreamedRequestBody:
    """The body of one request. While too many of its bytes are in memory, no more are received."""

    __slots__ = ("_begun", "_is_paused", "_parser", "_receiver", "_socket", "_take", "_taken", "_waited", "_wakeup")

    def __init__(
        self, parser: RequestParser, socket: Socket, receiver: Receiver, wakeup: WakeupEvent, take: Take
    ) -> None:
        self._parser = parser
        self._socket = socket
        self._receiver = receiver
        self._wakeup = wakeup
        self._take = take
        self._begun = False
        self._is_paused = False
        self._taken = 0
        self._waited = 0.0

    @property
    def is_read(self) -> bool:
        """Whether the end of the body was read."""
        return not self._parser.in_body

    def note_arrival(self) -> None:
        """Record that bytes have arrived."""
        if self._parser.unread > PASSTHROUGH_BYTES // 2 and not self._is_paused:
            self._is_paused = True
            self._receiver.remove(self._socket)

    def is_hung_up(self) -> bool:
        """Whether the client has disconnected while nothing is received from it."""
        return self._is_paused and not self._socket.closed and self._socket.is_hung_up()

    async def next_piece(self) -> bytes:
        """Return the next piece of the body; ``b""`` at the end. Waits for the client, which has `BODY_SECONDS` plus
        the time that the body takes at `MIN_RATE`, but at most `WRITE_STALL_SECONDS` for each piece. Raises
        `HttpError`, and `trio.BrokenResourceError` if the connection is broken.
        """
        if not self._begun and self._parser.awaits_continue:
            await self._socket.send(CONTINUE)
        self._begun = True
        while (piece := self._parser.next_piece()) == b"":
            self._resume()
            await self._wait()
        self._resume()
        self._taken += len(piece or b"")
        return piece or b""

    async def _wait(self) -> None:
        began = trio.current_time()
        allowed = BODY_SECONDS + self._taken / MIN_RATE - self._waited
        with trio.move_on_after(max(0.0, min(allowed, WRITE_STALL_SECONDS))) as scope:
            await self._wakeup.wait()
        self._waited += trio.current_time() - began
        if scope.cancelled_caught:
            raise HttpError(408, "request_timeout", "The request took too long to arrive.", close=True)

    def _resume(self) -> None:
        if self._is_paused and self._parser.unread <= PASSTHROUGH_BYTES // 4:
            self.receive_again()

    def receive_again(self) -> None:
        """Receive from the client, if that was stopped."""
        if self._is_paused and not self._socket.closed:
            self._is_paused = False
            self._receiver.add(self._socket, self._take)
