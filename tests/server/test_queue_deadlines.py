"""A request's deadline counts from its acceptance on, also while it waits on the lane of a WebSocket."""

from __future__ import annotations

import trio
from hypothesis import given
from hypothesis import strategies as st

from llm_actors.run import Run
from llm_actors.testing import MovingClock
from llm_runtime.server.client_events import ClientEventHead, Resume
from llm_runtime.server.turns import LaneTurn, QueueDeadlines
from support.server import begin_text, end_text, hanging, open_server
from support.ws import connected


async def slow(run: Run) -> None:
    """Takes 10 s."""
    begin_text(run)
    await trio.sleep(10)
    end_text(run)


async def test_a_request_that_waits_on_its_lane_fails_at_its_deadline(jumping_clock: MovingClock) -> None:
    async with open_server(hanging) as server, connected(server) as ws:
        await ws.create("first")
        await server.engine.until(lambda: server.engine.open_runs == 1)
        began = trio.current_time()
        await ws.create("second", event_id="e2", llm_runtime={"deadline_s": 1})
        while (event := await ws.event())["type"] != "error":
            pass
        assert 1 <= trio.current_time() - began < 1.1
        assert event["event_id"] == "e2"
        assert (event["status"], event["error"]["code"]) == (400, "deadline_exceeded")
        assert event["error"]["code"] == "deadline_exceeded"
        assert len(server.engine.runs) == 1, "it never began"


async def test_time_on_the_lane_counts(jumping_clock: MovingClock) -> None:
    async with open_server(slow, hanging) as server, connected(server) as ws:
        await ws.create("first")
        began = trio.current_time()
        await ws.create("second", llm_runtime={"deadline_s": 15})
        assert (await ws.response())[-1]["type"] == "response.completed"
        assert (await ws.response())[-1]["type"] == "response.failed"
        assert 15 <= trio.current_time() - began < 15.1, "10 s on the lane, and 5 s of work"


async def test_a_lane_goes_on_after_one_that_waited_too_long(jumping_clock: MovingClock) -> None:
    """Also where that was all the lane had, and the connection's limit kept it from starting."""
    async with open_server(slow, max_body_total_mb=64, websocket_responses=1) as server, connected(server) as ws:
        await ws.create("first", stream_id="a")
        await ws.create("late", stream_id="b", llm_runtime={"deadline_s": 1})
        await ws.create("late too", stream_id="a", llm_runtime={"deadline_s": 2})
        await ws.create("patient", stream_id="b", llm_runtime={"deadline_s": 30})
        ends: list[tuple[str, str]] = []
        while len(ends) < 4:
            event = await ws.event()
            if event["type"] in ("error", "response.completed", "response.failed"):
                ends.append((event["type"], event["stream_id"]))
        assert ends == [("error", "b"), ("error", "a"), ("response.completed", "a"), ("response.completed", "b")]
        await ws.create("again", stream_id="b")
        assert (await ws.response())[-1]["type"] == "response.completed"


@given(st.lists(st.tuples(st.sampled_from(["add", "discard", "due"]), st.integers(0, 5))))
def test_the_first_deadline_is_always_known(steps: list[tuple[str, int]]) -> None:
    turns = [LaneTurn(ClientEventHead(), Resume(type="", response_id=""), 0, 0.0) for _ in range(6)]
    queued, model = QueueDeadlines(), dict[LaneTurn, float]()
    for step, number in steps:
        if step == "add":
            model[turns[number]] = float(number // 2)
            queued.add(turns[number], float(number // 2))
        elif step == "discard":
            model.pop(turns[number], None)
            queued.discard(turns[number])
        else:
            due = {each for each, deadline in model.items() if deadline <= number}
            assert set(queued.take_due(number)) == due
            model = {each: deadline for each, deadline in model.items() if each not in due}
        assert queued.next() == min(model.values(), default=float("inf"))
