"""A mirror: the local copy of a response that another worker produces. Its run is filled with events from that
worker.

Clients of this worker follow the mirror like a response of this worker. When the last client leaves, the mirror is
dropped. When a client cancels the mirror, the response is cancelled at the other worker. When the other worker ends,
the mirror's log ends.
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
"""Seconds that a mirror waits for its first follower. Without one, it is dropped."""

CANCEL_SECONDS: Final = 2.0
"""Seconds that a cancelled response has to end at the other worker."""


def unpack_found(response_id: str, found: FoundAnswer, now: float) -> StoredResponse:
    """Return the response of another worker, up to its latest event. May be called in any thread; ``now`` is the time
    on Trio's clock. Raises `msgspec.MsgspecError`.
    """
    asked = unpack_head(found.head)
    run = Run(asked.inbound.request, stream=True, response_id=response_id, started_at=now)
    run.log.restore(unpack_log(found.events))
    return asked.response(run)


@final
class Mirror:
    """Fills the log of ``stored`` with the events that arrive in ``frames`` from the other worker."""

    def __init__(self, stored: StoredResponse, frames: FrameReader) -> None:
        self.stored = stored
        self._run = stored.run
        self._frames = frames
        self._frame: bytes | None = None
        """A received frame that is not in the log yet."""
        self.is_given_up = False
        """Whether the mirror's log ends differently from the response at the other worker."""

    @property
    def is_whole(self) -> bool:
        """Whether the response has ended."""
        return self._run.log.end is not None

    @property
    def is_cancelled(self) -> bool:
        """Whether a client of this worker has cancelled the response."""
        return self._run.is_cancelled_by_client and not self.is_whole

    async def follow(self) -> None:
        """Fill the log, until the response ends or the mirror has had no follower for `UNFOLLOWED_SECONDS`. Raises
        `msgspec.MsgspecError` or `AssertionError` for a frame that cannot be read.
        """
        run = self._run
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._leave_unfollowed)
            with run.scope:
                await self._fill()
            if not self.is_whole:
                nursery.cancel_scope.cancel("the run was cancelled")

    async def follow_cancelled(self) -> None:
        """Fill the log to its end, which is near, because the response is being cancelled at the other worker. Raises
        as `follow` does.
        """
        with trio.move_on_after(CANCEL_SECONDS):
            await self._fill()

    def end(self) -> None:
        """End the log, if it has no end: no client of this worker needs it, or this worker ends."""
        if not self.is_whole:
            self.is_given_up = True
            self._run.close()

    def give_up(self, reason: str) -> None:
        """End the log, if it has no end, because the response cannot be followed."""
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
                    self._interrupt("the worker that produced this response has ended; the response is incomplete")
                return
            match ANSWERS.decode(self._frame):
                case PieceAnswer(pieces):
                    size = len(self._frame) if len(pieces) > 1 else 0
                    self._run.log.restore(await run_large(size, unpack_log, pieces))
                case BrokenAnswer():
                    self.give_up("this response cannot be passed on between workers; the response is incomplete")
                case _:
                    raise AssertionError("only PieceAnswers may follow")
            self._frame = None

    def _interrupt(self, message: str) -> None:
        end_interrupted(self._run, message)
