"""A response that another worker makes, followed here: a run whose log is filled from over there.

Clients of this worker follow the mirror as they would the response. When the last of them leaves, so does the mirror;
when one cancels it, the response is cancelled where it is made. When the other worker ends, so does the mirror's log.
"""

from __future__ import annotations

from typing import Final, final

import msgspec
import trio

from llm_actors.run import Run
from llm_actors.run.run import DESERTED
from llm_protocol.events import Failed
from llm_protocol.failures import Failure, FailureKind
from llm_runtime.server.packing import unpack_events, unpack_head
from llm_runtime.server.response_store import StoredResponse
from llm_runtime.workers.messages import ANSWERS, FoundAnswer, FrameReader, PieceAnswer

UNFOLLOWED_SECONDS: Final = 1.0
"""How long a mirror waits for its first follower."""

CANCEL_SECONDS: Final = 2.0
"""How long a cancelled response has to end where it is made."""


@final
class Mirror:
    """``found`` is what the other worker said first; it says more over ``stream``, which is closed at the end."""

    def __init__(self, response_id: str, found: FoundAnswer, stream: trio.abc.Stream, frames: FrameReader) -> None:
        asked = unpack_head(found.head)
        run = Run(asked.inbound.request, stream=True, response_id=response_id)
        run.log.restore(unpack_events(found.events))
        self.stored: StoredResponse = asked.response(run)
        self._run = run
        self._stream = stream
        self._frames = frames
        self.is_given_up = False
        """Whether the log ends because nobody needed it here, and not as the response did."""

    @property
    def is_whole(self) -> bool:
        """Whether the response has ended."""
        return self._run.log.end is not None

    async def follow(self) -> None:
        """Fill the log, to its end or until nobody needs it here."""
        run = self._run
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._leave_unfollowed)
            with run.scope:
                await self._fill()
            nursery.cancel_scope.cancel("the mirror has ended")

    async def follow_cancelled(self) -> None:
        """Fill the log to its end, which is near: the response is being cancelled over there."""
        with trio.move_on_after(CANCEL_SECONDS):
            await self._fill()

    async def close(self) -> None:
        """End the log, if it has none, and leave the other worker."""
        if not self.is_whole:
            if self._run.cancelled_because is not None:
                self.is_given_up = True
                self._run.close()
            else:
                self._interrupt()
        await trio.aclose_forcefully(self._stream)

    @property
    def is_cancelled(self) -> bool:
        """Whether a client here has cancelled the response."""
        return self._run.cancelled_because not in (None, DESERTED) and not self.is_whole

    async def _leave_unfollowed(self) -> None:
        await trio.sleep(UNFOLLOWED_SECONDS)
        if not self._run.log.followers:
            self._run.cancel(DESERTED)

    async def _fill(self) -> None:
        while not self.is_whole and (frame := await self._frames.next()) is not None:
            piece = ANSWERS.decode(frame)
            assert isinstance(piece, PieceAnswer), "only pieces follow"
            self._run.log.restore(unpack_events(piece.events))

    def _interrupt(self) -> None:
        message = "the worker that made this response has ended; this is what there was of it"
        failure = Failure(kind=FailureKind.INTERRUPTED, message=message, partial=self._run.has_content)
        response = msgspec.structs.replace(self._run.folded(), processing_time_ms=0.0)
        self._run.log.append(Failed(failure=failure, response=response))
