"""The WebSocket protocol: lanes, events, errors, cancel."""

from __future__ import annotations

import trio
from support.door import open_door, saying
from support.ws import connected, ids, text_of


async def test_one_response() -> None:
    async with open_door() as door, connected(door) as ws:
        await ws.create()
        events = await ws.response()
        assert text_of(events) == "Hello"
        assert [e["sequence_number"] for e in events] == sorted(e["sequence_number"] for e in events)
        await ws.create("more", previous_response_id=ids(events), store=False)
        assert text_of(await ws.response()) == "Hello"
        assert [m.role for m in door.engine.requests[1].messages] == ["user", "assistant", "user"]
