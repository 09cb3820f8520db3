"""A response that another worker makes, followed here: a run whose log is filled from over there.

Clients of this worker follow the mirror as they would the response. When the last of them leaves, so does the mirror;
when one cancels it, the response is cancelled where it is made. When the other worker ends, so does the mirror's log.
"""

from __future__ import annotations

from typing import Final, final

import trio

from llm_actors.run import Run
from llm_actors.run.run import DESERTED
from llm_actors.threads import run_large
from llm_runtime.server.packing import unpack_head, unpack_log
from llm_runtime.server.response_store import StoredResponse, end_interrupted
from llm_runtime.workers.messages import ANSWERS, BrokenAnswer, FoundAnswer, FrameReader, PieceAnswer

UNFOLLOWED_SECONDS: Final = 1.0
"""How long a mirror waits for its first follower."""

CANCEL_SECONDS: Final = 2.0
"""How long a cancelled response has to end where it is made."""


def unpack_found(response_id: str, found: FoundAnswer, now: float) -> StoredResponse:
    """The response of another worker, as far as it has come. May be called in any thread; ``now`` is the time on Trio's
    clock. Raises `msgspec.MsgspecError`.
    """
    asked = unpack_head(found.head)
    run = Run(asked.inbound.request, stream=True, response_id=response_id, started_at=now)
    run.log.restore(unpack_log(found.events))
    return asked.response(run)


@final
class Mirror:
    """Fills the log of ``stored`` with what comes as ``frames`` from the other worker."""

    def __init__(self, stored: StoredResponse, frames: FrameReader) -> None:
        self.stored = stored
        self._run = stored.run
        self._frames = frames
        self._frame: bytes | None = None
        """What has come and is not in the log yet."""
        self.is_given_up = False
        """Whether the log ends otherwise than the response does where it is made."""

    @property
    def is_whole(self) -> bool:
        """Whether the response has ended."""
        return self._run.log.end is not None

    @property
    def is_cancelled(self) -> bool:
        """Whether a client here has cancelled the response."""
        return self._run.is_cancelled_by_client and not self.is_whole

    async def follow(self) -> None:
        """Fill the log, to its end or until nobody needs it here, and wait for its first follower. Raises for what
        cannot be read.
        """
        run = self._run
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._leave_unfollowed)
            with run.scope:
                await self._fill()
            if not self.is_whole:
                nursery.cancel_scope.cancel("the run was cancelled")

    async def follow_cancelled(self) -> None:
        """Fill the log to its end, which is near: the response is being cancelled over there. Raises as `follow`."""
        with trio.move_on_after(CANCEL_SECONDS):
            await self._fill()

    def end(self) -> None:
        """End the log, if it has no end: nobody needs it here, or this worker ends."""
        if not self.is_whole:
            self.is_given_up = True
            self._run.close()

    def give_up(self, reason: str) -> None:
        """End the log, if it has no end, because it cannot be followed."""
        if not self.is_whole:
            self.is_given_up = True
            self._interrupt(reason)

    async def _leave_unfollowed(self) -> None:
        await trio.sleep(UNFOLLOWED_SECONDS)
        if not self._run.log.followers:
            self._run.cancel(DESERTED)

    async def _fill(self) -> None:
        while not self.is_whole:
            if self._frame is None:
                self._frame = await self._frames.next()
            if self._frame is None:
                if self._run.cancelled_because is None:
                    self._interrupt("the worker that made this response has ended; this is what there was of it")
                return
            match ANSWERS.decode(self._frame):
                case PieceAnswer(pieces):
                    size = len(self._frame) if len(pieces) > 1 else 0
                    self._run.log.restore(await run_large(size, unpack_log, pieces))
                case BrokenAnswer():
                    self.give_up("this response cannot be passed on between workers; this is what there was of it")
                case _:
                    raise AssertionError("only PieceAnswers may follow")
            self._frame = None

    def _interrupt(self, message: str) -> None:
        end_interrupted(self._run, message)
