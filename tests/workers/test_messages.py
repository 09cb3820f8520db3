"""The frames that workers send each other."""

from __future__ import annotations

import trio
import trio.testing

from llm_runtime.workers.messages import FrameReader


async def test_a_cut_off_read_loses_nothing() -> None:
    """A mirror goes on reading when its response was cancelled."""
    ours, theirs = trio.testing.memory_stream_pair()
    frames = FrameReader(ours)
    for piece in (b"\0\0", b"\0\5", b"fi"):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(frames.next)
            await theirs.send_all(piece)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    await theirs.send_all(b"rst\0\0\0\6second")
    assert [await frames.next(), await frames.next()] == [b"first", b"second"]


async def test_a_frame_that_is_cut_short_is_none() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(b"\0\0\0\5fir")
    await theirs.aclose()
    assert await FrameReader(ours).next() is None
